//! How many predictions a submission to BabyLM 2025 or 2026 must have: the sizes that the organisers' collating script
//! checks (babylm/evaluation-pipeline-2025, `collate_preds.py`), with the names as it compares them, in lower case.

use crate::eval::results::Set;
use crate::eval::zeroshot::Task;

const BLIMP: &str = "
    adjunct_island 928 anaphor_gender_agreement 971 anaphor_number_agreement 931 animate_subject_passive 895
    animate_subject_trans 923 causative 818 complex_np_island 846 coordinate_structure_constraint_complex_left_branch 906
    coordinate_structure_constraint_object_extraction 949 determiner_noun_agreement_1 929 determiner_noun_agreement_2 931
    determiner_noun_agreement_irregular_1 681 determiner_noun_agreement_irregular_2 820
    determiner_noun_agreement_with_adj_2 941 determiner_noun_agreement_with_adj_irregular_1 718
    determiner_noun_agreement_with_adj_irregular_2 840 determiner_noun_agreement_with_adjective_1 933
    distractor_agreement_relational_noun 788 distractor_agreement_relative_clause 871 drop_argument 920
    ellipsis_n_bar_1 802 ellipsis_n_bar_2 828 existential_there_object_raising 812 existential_there_quantifiers_1 930
    existential_there_quantifiers_2 911 existential_there_subject_raising 924 expletive_it_object_raising 759
    inchoative 855 intransitive 868 irregular_past_participle_adjectives 961 irregular_past_participle_verbs 942
    irregular_plural_subject_verb_agreement_1 804 irregular_plural_subject_verb_agreement_2 892
    left_branch_island_echo_question 947 left_branch_island_simple_question 951 matrix_question_npi_licensor_present 929
    npi_present_1 909 npi_present_2 914 only_npi_licensor_present 882 only_npi_scope 837 passive_1 840 passive_2 903
    principle_a_c_command 946 principle_a_case_1 912 principle_a_case_2 915 principle_a_domain_1 914
    principle_a_domain_2 915 principle_a_domain_3 941 principle_a_reconstruction 967
    regular_plural_subject_verb_agreement_1 890 regular_plural_subject_verb_agreement_2 945
    sentential_negation_npi_licensor_present 919 sentential_negation_npi_scope 871 sentential_subject_island 961
    superlative_quantifiers_1 979 superlative_quantifiers_2 986 tough_vs_raising_1 948 tough_vs_raising_2 920
    transitive 868 wh_island 960 wh_questions_object_gap 859 wh_questions_subject_gap 898
    wh_questions_subject_gap_long_distance 857 wh_vs_that_no_gap 861 wh_vs_that_no_gap_long_distance 875
    wh_vs_that_with_gap 919 wh_vs_that_with_gap_long_distance 910";
const SUPPLEMENT: &str =
    "hypernym 842 qa_congruence_easy 64 qa_congruence_tricky 165 subject_aux_inversion 3867 turn_taking 280";
const EWOK: &str = "
    agent-properties 2210 material-dynamics 770 material-properties 170 physical-dynamics 120 physical-interactions 556
    physical-relations 818 quantitative-properties 314 social-interactions 294 social-properties 328
    social-relations 1548 spatial-relations 490";
const REGULAR: &str = "
    regular_0_ops 606 regular_1_ops 607 regular_2_ops 606 regular_3_ops 606 regular_4_ops 568 regular_5_ops 159";
const ENTITY_TRACKING: &str = "
    regular_0_ops 606 regular_1_ops 607 regular_2_ops 606 regular_3_ops 606 regular_4_ops 568 regular_5_ops 159
    ambiref_0_ops 607 ambiref_1_ops 607 ambiref_2_ops 604 ambiref_3_ops 604 ambiref_4_ops 615 ambiref_5_ops 187
    move_contents_0_ops 605 move_contents_1_ops 606 move_contents_2_ops 605 move_contents_3_ops 606
    move_contents_4_ops 529 move_contents_5_ops 156";
const COMPS: &str = "base 49340 wugs 13896 wugs_dist_before 13896 wugs_dist_in_between 13896";

/// The fine-tuning tasks with the rows of their validation files.
pub const GLUE: [(&str, usize); 7] =
    [("boolq", 1635), ("mnli", 4908), ("mrpc", 204), ("multirc", 2424), ("qqp", 20215), ("rte", 139), ("wsc", 52)];
/// Surprisals of one milestone in the file for the age of acquisition.
pub const AOA: usize = 8005;

/// What a task's predictions must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sizes {
    /// These parts, each with so many.
    Parts(Vec<(&'static str, usize)>),
    /// Any parts, each with so many.
    Each(usize),
}

/// The sizes of a zero-shot task; nothing for one that no submission has.
pub fn of(task: Task, set: Set) -> Option<Sizes> {
    Some(match (task, set) {
        (Task::Blimp, Set::Full) => table(BLIMP),
        (Task::Blimp, Set::Fast) => Sizes::Each(200),
        (Task::Supplement, Set::Full) => table(SUPPLEMENT),
        (Task::Supplement, Set::Fast) => Sizes::Each(50),
        (Task::Ewok, Set::Full) => table(EWOK),
        (Task::Ewok, Set::Fast) => Sizes::Each(100),
        (Task::EntityTracking, Set::Full) => table(ENTITY_TRACKING),
        (Task::EntityTracking, Set::Fast) => table(REGULAR),
        (Task::Comps, Set::Full) => table(COMPS),
        (Task::WugAdj, _) => Sizes::Each(200),
        (Task::WugPast, _) => Sizes::Each(50),
        (Task::Reading, _) => Sizes::Each(1726),
        _ => return None,
    })
}

/// Names and numbers by turns.
fn table(text: &'static str) -> Sizes {
    let words: Vec<&str> = text.split_whitespace().collect();
    // A test reads all tables.
    Sizes::Parts(words.chunks(2).filter_map(|pair| Some((*pair.first()?, pair.get(1)?.parse().ok()?))).collect())
}

impl Sizes {
    /// How many there are in all; nothing where there may be any number of parts.
    pub fn total(&self) -> Option<usize> {
        match self {
            Sizes::Each(_) => None,
            Sizes::Parts(all) => Some(all.iter().map(|(_, n)| n).sum()),
        }
    }

    /// What is wrong with parts of these sizes, in words; nothing if they are right.
    pub fn check(&self, parts: &[(String, usize)]) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut sized = |name: &str, has: usize, must: usize| {
            if has != must {
                wrong.push(format!("{name} has {has} items, and must have {must}"));
            }
        };
        match self {
            Sizes::Each(must) => parts.iter().for_each(|(name, has)| sized(name, *has, *must)),
            Sizes::Parts(all) => {
                for (name, must) in all {
                    let part = parts.iter().find(|(part, _)| part.to_lowercase() == *name);
                    sized(name, part.map_or(0, |(_, has)| *has), *must);
                }
                let known = |name: &str| all.iter().any(|(part, _)| *part == name.to_lowercase());
                parts.iter().filter(|(name, _)| !known(name)).for_each(|(name, has)| sized(name, *has, 0));
            }
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_whole() {
        // Parts and items of the official data: 67 files of 59,875 lines and so on.
        for (task, set, expected) in [
            (Task::Blimp, Set::Full, (67, 59_875)),
            (Task::Supplement, Set::Full, (5, 5_218)),
            (Task::Ewok, Set::Full, (11, 7_618)),
            (Task::EntityTracking, Set::Full, (18, 9_483)),
            (Task::EntityTracking, Set::Fast, (6, 3_152)),
            (Task::Comps, Set::Full, (4, 91_028)),
        ] {
            let Some(Sizes::Parts(parts)) = of(task, set) else { panic!("{task}") };
            assert_eq!((parts.len(), parts.iter().map(|part| part.1).sum::<usize>()), expected, "{task}");
            assert!(parts.iter().all(|(name, _)| *name == name.to_lowercase()));
        }
        assert_eq!(of(Task::Comps, Set::Fast), None);
        assert_eq!(of(Task::Pairs, Set::Full), None);
    }

    #[test]
    fn wrong_sizes_are_named() {
        let parts = |list: &[(&str, usize)]| list.iter().map(|&(name, n)| (name.to_owned(), n)).collect::<Vec<_>>();
        let sizes = Sizes::Parts(vec![("a", 2), ("b", 3)]);
        assert!(sizes.check(&parts(&[("A", 2), ("b", 3)])).is_empty());
        let wrong = sizes.check(&parts(&[("a", 1), ("c", 1)]));
        assert_eq!(
            wrong,
            ["a has 1 items, and must have 2", "b has 0 items, and must have 3", "c has 1 items, and must have 0"]
        );
        assert_eq!(Sizes::Each(4).check(&parts(&[("x", 4), ("y", 5)])), ["y has 5 items, and must have 4"]);
    }
}
