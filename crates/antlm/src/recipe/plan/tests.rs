use super::*;
use crate::recipe::{builtin, names};

fn close(got: f64, wanted: f64) {
    assert!((got - wanted).abs() <= 1e-9 * wanted.abs(), "{got}, expected {wanted}");
}

#[test]
fn every_built_in_recipe_plans() {
    for name in names() {
        let recipe = builtin(&name).unwrap();
        let plan = Plan::new(&recipe, None).unwrap();
        assert!(plan.assumed && plan.notes[0].contains("assumption"));
        assert_eq!(plan.steps, plan.blocks.iter().map(|block| block.steps).sum::<u64>());
        assert_eq!(plan.steps, plan.steps_by_objective.values().sum::<u64>());
        assert!(plan.blocks.iter().all(|block| block.lr_first >= 0.0 && block.lr_last > 0.0));
        assert!(plan.to_string().contains(&name));
        assert!(serde_json::to_string(&plan).unwrap().contains("\"steps_by_objective\""));
    }
}

#[test]
fn the_papers_llama_run() {
    // 128,000 segments of 78.125 words: 1000 steps an epoch.
    let facts = Facts { segments: 128_000, words: 10_000_000, tokens: 14_000_000, text_words: 10_000_000 };
    let plan = Plan::new(&builtin("antlm-babyllama-58m").unwrap(), Some(facts)).unwrap();
    assert_eq!((plan.steps, plan.warmup_steps, plan.words), (24_000, 300, 240_000_000));
    assert_eq!(plan.words_per_step, 10_000.0);
    let steps: Vec<(u64, u64)> = plan.blocks.iter().map(|block| (block.first_step, block.steps)).collect();
    assert_eq!(steps, [(0, 4000), (4000, 16_000), (20_000, 4000)]);
    assert_eq!(plan.blocks[0].lr_first, 0.0);
    // The cosine from 7e-4 to a tenth, from step 300 to 24,000, at step 19,999.
    let angle = std::f64::consts::PI * 19_699.0 / 23_700.0;
    close(plan.blocks[1].lr_last, 7e-4 * (0.1 + 0.45 * (1.0 + angle.cos())));
    // 100 M words are ten epochs: the next word is in epoch 11, step 10,001, in the masked block.
    let seen = &plan.limits[1];
    assert_eq!((seen.track, seen.what, seen.crossed), ("strict-small", "seen", true));
    assert_eq!((seen.block, seen.epoch, seen.step), (Some(1), Some(10), Some(10_000)));
    assert_eq!(plan.limits.iter().map(|limit| limit.crossed).collect::<Vec<_>>(), [false, true, false, false]);
}

#[test]
fn limits_are_inclusive() {
    let recipe = Recipe { schedule: "10 clm".to_owned().try_into().unwrap(), ..builtin("babyllama-tiny").unwrap() };
    let plan = |words| {
        Plan::new(&recipe, Some(Facts { segments: 100_000, words, tokens: 14_000_000, text_words: words })).unwrap()
    };
    assert!(plan(10_000_000).limits.iter().all(|limit| !limit.crossed));
    let over = plan(10_000_001);
    assert!(over.limits[0].crossed && over.limits[1].crossed);
    assert_eq!(over.limits[1].epoch, Some(9));
}

/// On as much text as strict-small allows, and every size has such a recipe: `…-2026-…`, or `…-tiny`.
#[test]
fn recipes_for_2026_stay_within_ten_passes() {
    let mut sizes = std::collections::BTreeSet::new();
    for name in names() {
        let recipe = builtin(&name).unwrap();
        let Facts { segments, .. } = Facts::assumed(10_000_000, recipe.seq_len);
        // A little uneven: the last segment is not full.
        let plan =
            Plan::new(&recipe, Some(Facts { segments, words: 10_000_000, tokens: 16_000_001, text_words: 10_000_000 }))
                .unwrap();
        let within = plan.limits.iter().all(|limit| !limit.crossed);
        if let Some((kind, size)) = name.split_once("-2026-") {
            assert!(within && plan.words == 100_000_000 && plan.epochs == 10.0, "{name}: {:?}", plan.limits);
            let whole = builtin(&format!("{kind}-{size}")).unwrap();
            let Recipe { name, description, schedule, .. } = recipe;
            assert!(schedule.blocks().len() == 3 && schedule.objectives() == whole.schedule.objectives());
            assert_eq!(Recipe { name: name.clone(), description, schedule, ..whole }, builtin(&name).unwrap());
            sizes.insert(size.to_owned());
        } else {
            assert_eq!(within, name.ends_with("-tiny"), "{name}");
        }
    }
    let all = names().into_iter().filter(|name| !name.ends_with("-tiny"));
    let all: std::collections::BTreeSet<String> =
        all.filter_map(|name| name.strip_prefix("antlm-mntp-").map(|size| size.replace("2026-", ""))).collect();
    assert_eq!(sizes, all);
}

#[test]
fn a_small_text_is_warned_about() {
    let facts = Facts { segments: 3500, words: 300_000, tokens: 440_000, text_words: 300_000 };
    let notes = |name| Plan::new(&builtin(name).unwrap(), Some(facts)).unwrap().notes.join("\n");
    assert!(
        notes("antlm-ltg-bert-base").contains("the shortest block has 21 steps"),
        "{}",
        notes("antlm-ltg-bert-base")
    );
    assert!(!notes("ltg-bert-base").contains("shortest"));
    assert_eq!(notes("antlm-ltg-bert-tiny"), "", "tiny is made for texts of this size");
    let words = Facts { segments: 2, words: 4_000_000, tokens: 200, text_words: 4_000_000 };
    let set = ["schedule=9Mw clm", "batch.segments=24"].map(String::from);
    let recipe = Recipe::load("babyllama-tiny", &set).unwrap();
    let plan = Plan::new(&recipe, Some(words)).unwrap();
    assert_eq!((plan.steps, plan.epochs), (1, 12.0));
    assert!(plan.notes.join("\n").contains("1 M words"));
}

#[test]
fn a_curve_for_each_block() {
    let mut recipe = builtin("antlm-babyllama-58m").unwrap();
    recipe.learning_rate.restart = Restart::Block;
    let plan = Plan::new(&recipe, None).unwrap();
    assert!(plan.blocks.iter().all(|block| block.lr_first == 0.0));
}

#[test]
fn the_table() {
    let facts = Facts { segments: 3500, words: 300_000, tokens: 440_000, text_words: 300_000 };
    // The values that may be tuned are given here.
    let set = ["batch.segments=24", "batch.micro_tokens=3072", "optimizer.lr=0.003", "learning_rate.warmup=0.05"];
    let recipe = Recipe::load("antlm-ltg-bert-tiny", &set.map(String::from)).unwrap();
    insta::assert_snapshot!(Plan::new(&recipe, Some(facts)).unwrap());
}
