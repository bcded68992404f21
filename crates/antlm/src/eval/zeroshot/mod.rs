//! Zero-shot evaluation: tasks, their files and items, how the official protocols score them, and the results.

pub mod aoa;
pub mod evaluate;
pub mod find;
pub mod items;
pub mod protocol;
pub mod reading;
mod report;

use std::fmt;

use serde::{Deserialize, Serialize};

/// A zero-shot task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// BLiMP, filtered by the organisers' vocabulary: 67 paradigms.
    Blimp,
    /// The BLiMP Supplement: 5 files.
    Supplement,
    /// Elements of World Knowledge.
    Ewok,
    /// What is in which box.
    EntityTracking,
    /// Properties of concepts, inherited or not.
    Comps,
    /// Nouns of made-up adjectives, against people's choices.
    WugAdj,
    /// Past tenses of made-up verbs, against people's choices.
    WugPast,
    /// Reading times, explained by surprisal.
    Reading,
    /// The age of acquisition: surprisal of words over checkpoints.
    Aoa,
    /// BLiMP for Dutch.
    BlimpNl,
    /// BLiMP for Chinese.
    Zhoblimp,
    /// MultiBLiMP: agreement in many languages.
    Multiblimp,
    /// Any folder of files with BLiMP's keys (`antlm sample-pairs`).
    Pairs,
}

impl Task {
    /// All, in the order of tables.
    pub const ALL: [Task; 13] = [
        Task::Blimp,
        Task::Supplement,
        Task::Ewok,
        Task::EntityTracking,
        Task::Comps,
        Task::WugAdj,
        Task::WugPast,
        Task::Reading,
        Task::Aoa,
        Task::BlimpNl,
        Task::Zhoblimp,
        Task::Multiblimp,
        Task::Pairs,
    ];

    /// The name in options, files and tables.
    pub fn name(self) -> &'static str {
        match self {
            Task::Blimp => "blimp",
            Task::Supplement => "supplement",
            Task::Ewok => "ewok",
            Task::EntityTracking => "entity-tracking",
            Task::Comps => "comps",
            Task::WugAdj => "wug-adj",
            Task::WugPast => "wug-past",
            Task::Reading => "reading",
            Task::Aoa => "aoa",
            Task::BlimpNl => "blimp-nl",
            Task::Zhoblimp => "zhoblimp",
            Task::Multiblimp => "multiblimp",
            Task::Pairs => "pairs",
        }
    }

    /// The metric of its score.
    pub fn metric(self) -> &'static str {
        match self {
            Task::WugAdj | Task::WugPast => "spearman",
            Task::Reading => "delta-r2",
            Task::Aoa => "surprisal",
            _ => "accuracy",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}
