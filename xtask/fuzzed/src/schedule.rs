//! Schedules: any text.

use antlm::Error;
use antlm::objective::schedule::Schedule;
use antlm::objective::stream::Layout;
use antlm_nn::rng::Rng;

pub fn run(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let schedule = match Schedule::parse(text) {
        Ok(schedule) => schedule,
        Err(error) => {
            crate::refused(&error);
            let Error::Schedule { at, .. } = error else { panic!("{error}") };
            assert!((1..=text.chars().count() + 1).contains(&at), "{error}");
            return false;
        }
    };
    let canonical = schedule.to_string();
    assert_eq!(Schedule::parse(&canonical).expect("what it prints it reads"), schedule);
    let blocks = schedule.blocks();
    assert!(!blocks.is_empty() && !schedule.objectives().is_empty());
    for block in &blocks {
        assert_eq!(block.what.pattern().iter().max(), block.what.objectives().iter().max());
    }
    // Seven segments, three a step.
    let words = |segment: u32| segment % 5;
    let Some(layout) = crate::read(Layout::new(&blocks, 7, words, 3, Rng::new(1))) else { return false };
    assert_eq!(layout.blocks.len(), blocks.len());
    let (mut step, mut position) = (0, 0);
    for span in &layout.blocks {
        assert!(span.steps.start == step && span.positions.start == position && span.steps.end >= step);
        (step, position) = (span.steps.end, span.positions.end);
        assert_eq!(span.steps_by_objective().iter().map(|(_, n)| n).sum::<u64>(), span.steps.end - span.steps.start);
    }
    assert_eq!(layout.total_steps(), step);
    if let Some(last) = step.checked_sub(1).and_then(|last| layout.step(last)) {
        assert!(last.ends_block && last.positions.end == position);
    }
    assert_eq!(layout.step(step), None);
    true
}

pub fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "4 clm + 16 mlm + 4 clm",
        "4_CLM + 2x(8 mlm + 1 mntp)+4 clm",
        "10Mw mix(clm:1, mlm:3) + 250 kw mntp",
        "3x(2x(1 clm + 1 mlm)) + 5kw clm",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
