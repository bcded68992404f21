//! Tables: what each rule and each corpus makes of a line or a document.

use super::*;

/// One rule of a corpus on one text.
fn check(corpus: Corpus, rule: &str, table: &[(&str, &str)]) {
    let rule = corpus.rules().iter().find(|r| r.name == rule).unwrap_or_else(|| panic!("{corpus:?} has no {rule}"));
    for (input, expect) in table {
        assert_eq!(rule.apply(input), *expect, "{} of {input:?}", rule.name);
    }
}

/// All rules of a corpus.
fn check_all(corpus: Corpus, table: &[(&str, Option<&str>)]) {
    for (input, expect) in table {
        assert_eq!(clean(input, corpus).as_deref(), *expect, "{corpus:?} of {input:?}");
    }
}

#[test]
fn characters() {
    check(
        Corpus::Gutenberg,
        "encoding",
        &[
            ("plain", "plain"),
            ("donâ€™t say â€œnoâ€\u{9d} â€“ orâ€¦", "don’t say “no” – or…"),
            ("he said â€œnoâ€", "he said “no”"),
            ("cafÃ© naÃ¯ve Â£5", "café naïve £5"),
            ("ï»¿start", "start"),
            ("a\u{0}b\u{1b}c\u{200b}d\u{ad}e\u{feff}", "abcde"),
            ("tab\there", "tab\there"),
            // Meant as they are.
            ("CAFÉ” GROß” NÃO Âme î ï â Pâtes", "CAFÉ” GROß” NÃO Âme î ï â Pâtes"),
            ("€ 5, â la carte, Ã", "€ 5, â la carte, Ã"),
        ],
    );
    check(
        Corpus::Gutenberg,
        "spaces",
        &[("a b", "a b"), ("  a\t b \u{a0}\u{3000}c ", "a b c"), ("", ""), (" ", ""), ("a\n  b", "a\nb"), ("a ", "a")],
    );
    check(
        Corpus::Cbt,
        "punctuation",
        &[
            ("`` No , '' she said", "\" No , \" she said"),
            ("‘a’ “b” „c” «d» it´s", "'a' \"b\" \"c\" \"d\" it's"),
            ("1914–18 and so—on…", "1914-18 and so - on..."),
            ("it's", "it's"),
        ],
    );
    check(Corpus::Cbt, "brackets", &[("-LRB- so -RRB- -LSB-x-RSB- -LCB-y-RCB-", "( so ) [x] {y}"), ("-L-", "-L-")]);
}

#[test]
fn words_and_marks() {
    check(
        Corpus::Cbt,
        "contractions",
        &[
            ("I do n't know , they 'll say we 've", "I don't know , they'll say we've"),
            ("CA N'T ; John 's hat , did n't .", "CAN'T ; John's hat , didn't ."),
            ("' s and 'tis , 'round", "' s and 'tis , 'round"),
            ("'s first", "'s first"),
            ("3 'd", "3 'd"),
            // Names that were taken out.
            ("going to 's school and 'll be with 's mother", "going to 's school and 'll be with 's mother"),
            ("The 's hat , AND 's", "The 's hat , AND 's"),
            (
                "it 's to be ; who 's in ; that 'd do ; the others 've",
                "it's to be ; who's in ; that'd do ; the others've",
            ),
            ("I should n't 've", "I shouldn't've"),
        ],
    );
    check(
        Corpus::Cbt,
        "spacing",
        &[
            ("well , no . What ?", "well, no. What?"),
            ("( so ) it [ is ] .", "(so) it [is]."),
            ("wait ... what ?!", "wait... what?!"),
            ("costs .5 or :-) or a -1", "costs .5 or :-) or a -1"),
            ("a : b", "a: b"),
        ],
    );
    check(
        Corpus::Cbt,
        "quotes",
        &[
            ("\" No \" she said , \" never \"", "\"No\" she said , \"never\""),
            ("\" No she said", "\" No she said"),
            ("\" No \" and \"yes\"", "\" No \" and \"yes\""),
            ("none", "none"),
        ],
    );
    check(
        Corpus::Childes,
        "capital",
        &[("so it is", "So it is"), ("éa", "Éa"), ("So", "So"), ("1 a", "1 a"), ("", "")],
    );
    check(
        Corpus::Qed,
        "shouting",
        &[
            ("lT'S FlNE. YES, l AM", "It's fine. Yes, I am"),
            ("\"HELLO THERE!\" (i'm)", "\"Hello there!\" (I'm)"),
            ("I'M HERE AND I", "I'm here and I"),
            ("Mr. Hill and NASA", "Mr. Hill and NASA"),
            ("I", "I"),
            ("...", "..."),
        ],
    );
}

#[test]
fn labels_and_mark_up() {
    check(
        Corpus::Childes,
        "speakers",
        &[
            ("*CHI:\tI like it.", "I like it."),
            ("*MOT: no", "no"),
            ("*EX2:", ""),
            ("A:\tB:\tx", "B:\tx"),
            ("*chi:\tx", "*chi:\tx"),
            ("*:\tx", "*:\tx"),
            ("C: x", "C: x"),
            ("A:B", "A:B"),
            ("at 3:00", "at 3:00"),
        ],
    );
    check(
        Corpus::Childes,
        "comments",
        &[("haha. [giggles]", "haha. "), ("a [x] b [y", "a  b [y"), ("] a", "] a"), ("[]", "")],
    );
    check(
        Corpus::Wikipedia,
        "citations",
        &[
            ("so[1] it[23] is [a] [1234] [] [see [4]", "so it is [a] [1234] [] [see "),
            ("[1", "[1"),
            ("[a[12]b[[3]", "[ab["),
        ],
    );
    check(
        Corpus::Wikipedia,
        "links",
        &[("the [[cat|cats]] sat on [[mat]]s", "the cats sat on mats"), ("[[a", "[[a"), ("[a]", "[a]")],
    );
    check(
        Corpus::Wikipedia,
        "headings",
        &[
            ("= = = The Cat = = =", "The Cat"),
            (" == x ==", "x"),
            ("= = =", "= = ="),
            ("a = b", "a = b"),
            ("= a", "= a"),
            ("The cat", "The cat"),
        ],
    );
    check(
        Corpus::Qed,
        "entities",
        &[("&amp;amp;lt;i&gt; &quot;a&quot; &#39;b", "<i> \"a\" 'b"), ("a & b &amp; c", "a & b & c"), ("AT&T", "AT&T")],
    );
    check(
        Corpus::OpenSubtitles,
        "dash",
        &[
            ("- What?", "What?"),
            ("-What?", "What?"),
            ("-5 degrees", "-5 degrees"),
            ("-- no", "-- no"),
            ("a - b", "a - b"),
        ],
    );
}

#[test]
fn dropped_lines() {
    check(Corpus::Qed, "blank", &[("a\n\n \nb", "a\nb"), ("\n\n", ""), ("a", "a")]);
    check(Corpus::BncSpoken, "bare", &[("a\n.\n?!\n5", "a\n5"), (". \n...", "")]);
    check(Corpus::Qed, "repeats", &[("a\na\nb\na\na\na", "a\nb\na"), ("a\n\n\nb", "a\n\nb")]);
    check(Corpus::OpenSubtitles, "credits", &[("a\nSubtitles by X\nb SUBTITLE\nc", "a\nc")]);
    check(Corpus::Qed, "markup", &[("a &lt;i&gt;\n00:01 --> 00:02\n12:\nNote:\n&lt;3", "Note:\n&lt;3")]);
    check(Corpus::Wikipedia, "files", &[("[[Category:Cats]]\na [[cat]]\n[[File:x.png|thumb]]", "a [[cat]]")]);
    check(
        Corpus::SimpleWiki,
        "stubs",
        &[
            ("= = = A = = =\nA is a town in B.\n= = = C = = =\nC is a cat.", "= = = C = = =\nC is a cat."),
            ("= = = A = = =\nA is a commune. It is in B.", ""),
            ("A is a town in B.", "A is a town in B."),
            ("= = = A = = =", "= = = A = = ="),
        ],
    );
    let long = format!("= = = A = = =\nA is a town in B. {}", "It is nice. ".repeat(12));
    check(Corpus::SimpleWiki, "stubs", &[(&long, &long)]);
}

#[test]
fn whole_profiles() {
    check_all(
        Corpus::Childes,
        &[
            (
                "*MOT:\tis n't it nice ?\n*CHI:\tyes .\n*CHI:\tyes .\n*MOT:\t[laughs]\n*CHI:\t.",
                Some("Isn't it nice?\nYes."),
            ),
            ("*CHI:\t[laughs]\n\n*MOT:\t?", None),
            // Without labels, as in 2023.
            ("do you see it ?", Some("Do you see it?")),
        ],
    );
    check_all(Corpus::BncSpoken, &[("er , well\n.\n“ so ”", Some("Er, well\n\"so\""))]);
    check_all(Corpus::Cbt, &[("`` I do n't -LRB- now -RRB- , '' he said .", Some("\"I don't (now),\" he said."))]);
    check_all(Corpus::Gutenberg, &[("  It  was\n\n a dark\n", Some("It was\na dark"))]);
    check_all(Corpus::ChildrenStories, &[("    Once\tthere", Some("Once there")), (" \u{200b} ", None)]);
    check_all(Corpus::OpenSubtitles, &[("- No.\n- No.\nSubtitles: me", Some("No."))]);
    check_all(Corpus::Qed, &[("&lt;i&gt;\nTHE &amp;amp; SIGN\n- so", Some("The & sign\nso"))]);
    check_all(Corpus::Switchboard, &[("A:\tUh-huh.\nB:\tUh-huh.\nB:\tSo,", Some("Uh-huh.\nSo,"))]);
    check_all(
        Corpus::SimpleWiki,
        &[
            ("= = = Cat = = =\nA [[cat|Cat]][2] is  an animal &amp; pet.", Some("Cat\nA Cat is an animal & pet.")),
            ("= = = A = = =\nA is a village in B.", None),
        ],
    );
    check_all(Corpus::Wikipedia, &[("= = = T = = =\n\n[[File:x]]\nText.", Some("T\nText."))]);
}

#[test]
fn cleaning_is_done_once() {
    // What is clean stays as it is: cleaning again changes nothing.
    let text = "*MOT:\t`` do n't \" , she — said ( so ) [x] &amp; [[a|b]]…\n- A\n= = = T = = =\n\nTHE lAST ONE\n.";
    for corpus in Corpus::ALL {
        let once = clean(text, corpus).unwrap();
        assert_eq!(clean(&once, corpus).as_ref(), Some(&once), "{corpus:?}");
    }
}

/// A search for the end of every bracket to the end of the line would take minutes here.
#[test]
fn long_lines_take_no_longer_than_their_length() {
    for part in ["[", "[[", "[1", "[[a|", "&amp", "( \" ", "- ", "= = = ", "â€", "' ", "a: "] {
        let line = part.repeat(400_000) + "]]";
        for corpus in Corpus::ALL {
            clean(&line, corpus);
        }
    }
}

#[test]
fn profiles_are_named() {
    for text in ["none", "babylm", "babylm:qed", "babylm:simple_wiki"] {
        assert_eq!(text.parse::<Cleaning>().unwrap().to_string(), text);
    }
    assert_eq!("babylm:aochildes".parse(), Ok(Cleaning::Corpus(Corpus::Childes)));
    for (text, hint) in [
        ("babyml", "did you mean \"babylm\"?"),
        ("babylm:gutenburg", "did you mean \"babylm:gutenberg\"?"),
        ("qqqqqqqq", "(there are none, babylm, and babylm:CORPUS"),
    ] {
        let error = text.parse::<Cleaning>().unwrap_err();
        assert!(error.contains(hint) && error.contains(text), "{error}");
    }
    for corpus in Corpus::ALL {
        let path = format!("x/{}.train.zst", corpus.name().to_uppercase());
        assert_eq!(Cleaning::Babylm.for_file(path.as_ref()), Ok(Some(corpus)));
        assert_eq!(serde_json::to_value(corpus).unwrap(), corpus.name());
        let mut names: Vec<&str> = corpus.rules().iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), corpus.rules().len(), "{corpus:?} has a rule twice");
    }
    assert_eq!(Cleaning::None.for_file("x.txt".as_ref()), Ok(None));
    assert_eq!(Cleaning::Corpus(Corpus::Qed).for_file("x.txt".as_ref()), Ok(Some(Corpus::Qed)));
    assert!(Cleaning::Babylm.for_file("dev.txt".as_ref()).unwrap_err().contains("babylm:CORPUS"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_a_rule_panic(text in "([\\[\\]|= '\"`.&;:*A-Zal-]|\n|\\PC|â€|Ã©){0,40}") {
        for corpus in Corpus::ALL {
            let _ = clean(&text, corpus);
        }
    }
}
