//! The settings of the two official fine-tunings, and changes to them by `--set`.
//!
//! Facts of both are from evaluation.md of the specification and from the published pipelines (babylm's
//! evaluation-pipeline-2024: `finetune_model.sh`, `finetune_classification.py`; -2025: `eval_finetuning.sh`,
//! `finetune/run.py`): numbers and formulas, no code.

use std::collections::BTreeMap;

use antlm_nn::optim::curve::{Curve, Length, Shape};

use super::data::Task;
use super::metrics::Metric;
use crate::suggest::did_you_mean;
use crate::{Error, Result};

/// Whose settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// BabyLM 2024: AutoModelForSequenceClassification and the Trainer's defaults.
    Y2024,
    /// BabyLM 2025 and 2026: AutoModel with the script's own head.
    Y2026,
}

impl Preset {
    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Y2024 => "2024",
            Preset::Y2026 => "2026",
        }
    }

    /// The tasks of `all`, in the order of the official table; their scores' mean is the GLUE score.
    pub fn tasks(self) -> &'static [Task] {
        use Task::{Boolq, Cola, Mnli, MnliMm, Mrpc, Multirc, Qnli, Qqp, Rte, Sst2, Wsc};
        match self {
            Preset::Y2024 => &[Boolq, Cola, Mnli, MnliMm, Mrpc, Multirc, Qnli, Qqp, Rte, Sst2, Wsc],
            Preset::Y2026 => &[Boolq, Multirc, Rte, Wsc, Mrpc, Qqp, Mnli],
        }
    }

    /// The seed that the official script has.
    pub fn seed(self) -> u64 {
        match self {
            Preset::Y2024 => 12,
            Preset::Y2026 => 42,
        }
    }

    /// What a task's score is. The script of 2026 averages accuracies, also of MRPC and QQP.
    pub fn metric(self, task: Task) -> Metric {
        match (self, task) {
            (_, Task::Cola) => Metric::Mcc,
            (Preset::Y2024, Task::Mrpc | Task::Qqp) => Metric::F1,
            _ => Metric::Accuracy,
        }
    }

    /// What chooses the epoch.
    pub fn chooses_by(self, task: Task) -> Metric {
        match (self, task) {
            (Preset::Y2024, task) if task.classes() == 2 => Metric::F1,
            (Preset::Y2026, Task::Mrpc | Task::Qqp) => Metric::F1,
            _ => Metric::Accuracy,
        }
    }

    /// The settings of a task.
    pub fn settings(self, task: Task) -> Settings {
        match self {
            Preset::Y2024 => Settings {
                lr: 5e-5,
                epochs: 10,
                batch: 64,
                length: 128,
                weight_decay: 0.0,
                warmup: 0.0,
                shape: Shape::Linear,
                floor: 0.0,
                clip: 1.0,
                drop_last: false,
                patience: 3,
                threshold: 0.001,
            },
            Preset::Y2026 => Settings {
                lr: 3e-5,
                epochs: if task == Task::Wsc { 30 } else { 10 },
                batch: if matches!(task, Task::Boolq | Task::Multirc) { 16 } else { 32 },
                length: 512,
                weight_decay: 0.01,
                warmup: 0.06,
                shape: Shape::Cosine,
                floor: 0.1,
                clip: 0.0,
                drop_last: true,
                patience: 0,
                threshold: 0.0,
            },
        }
    }
}

/// What decides how a task is learnt, besides seed and head. AdamW with betas 0.9 and 0.999 and eps 1e-8.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Peak learning rate.
    pub lr: f64,
    /// Passes over the training rows, at most.
    pub epochs: u32,
    /// Rows of one step.
    pub batch: u32,
    /// Tokens of a text (or both texts), with what frames them; what is longer is cut.
    pub length: u32,
    /// Weight decay, of all parameters.
    pub weight_decay: f64,
    /// Share of all steps in which the learning rate rises from 0, rounded down.
    pub warmup: f64,
    /// How it falls afterwards.
    pub shape: Shape,
    /// Where it ends, as a share of the peak.
    pub floor: f64,
    /// Largest norm of a step's gradient; 0 for none.
    pub clip: f64,
    /// A last batch of an epoch that is not full is left out.
    pub drop_last: bool,
    /// Stop after so many epochs without an improvement; 0 for never.
    pub patience: u32,
    /// An improvement by less than this does not count for `patience`.
    pub threshold: f64,
}

/// The keys of `--set`.
const KEYS: [&str; 9] = ["lr", "epochs", "batch", "length", "weight_decay", "warmup", "clip", "patience", "threshold"];

impl Settings {
    /// Factor of the learning rate at each step.
    pub fn curve(&self) -> Curve {
        Curve { shape: self.shape, warmup: Length::Fraction(self.warmup), floor: self.floor, cooldown: 0.0 }
    }

    /// Steps of one epoch over so many rows.
    pub fn steps(&self, rows: usize) -> u64 {
        let (rows, batch) = (rows as u64, u64::from(self.batch));
        if self.drop_last { rows / batch } else { rows.div_ceil(batch) }
    }

    /// Applies changes: `KEY=VALUE` to every task, `TASK.KEY=VALUE` to one.
    ///
    /// # Errors
    /// [`Error::Usage`] for what is no such change.
    ///
    /// ```
    /// use antlm::eval::finetune::{data::Task, presets::Preset};
    /// let changes = ["epochs=5", "wsc.epochs=20"].map(String::from);
    /// let mut settings = Preset::Y2026.settings(Task::Wsc);
    /// settings.set(Task::Wsc, &changes)?;
    /// assert_eq!((settings.epochs, settings.lr), (20, 3e-5));
    /// # Ok::<(), antlm::Error>(())
    /// ```
    pub fn set(&mut self, task: Task, changes: &[String]) -> Result<()> {
        for change in changes {
            let wrong = |what: String| Error::Usage(format!("--set {change}: {what}"));
            let Some((place, value)) = change.split_once('=') else {
                return Err(wrong("write KEY=VALUE, or TASK.KEY=VALUE for one task".into()));
            };
            let (of, key) = place.split_once('.').map_or((None, place), |(of, key)| (Some(of), key));
            if !KEYS.contains(&key) {
                let near = did_you_mean(key, KEYS);
                return Err(wrong(format!("`{key}` is no setting{near} (there are {})", KEYS.join(", "))));
            }
            if let Some(of) = of
                && Task::parse(of)? != task
            {
                continue;
            }
            let number: f64 = value.parse().map_err(|_| wrong(format!("{value:?} is no number")))?;
            let within = |low: f64, high: f64| match number {
                x if x >= low && x <= high => Ok(x),
                _ => Err(wrong(format!("must be {low} to {high}"))),
            };
            let whole = |low: f64, high: f64| match within(low, high)? {
                x if x.fract() == 0.0 => Ok(x as u32),
                _ => Err(wrong("must be a whole number".into())),
            };
            match key {
                "lr" => self.lr = within(0.0, 1.0)?,
                "epochs" => self.epochs = whole(1.0, 10_000.0)?,
                "batch" => self.batch = whole(1.0, 65_536.0)?,
                "length" => self.length = whole(8.0, 4096.0)?,
                "weight_decay" => self.weight_decay = within(0.0, 1.0)?,
                "warmup" => self.warmup = within(0.0, 1.0)?,
                "clip" => self.clip = within(0.0, 1e9)?,
                "patience" => self.patience = whole(0.0, 10_000.0)?,
                _ => self.threshold = within(0.0, 1.0)?,
            }
        }
        Ok(())
    }

    /// All of it, for a result.
    pub fn listed(&self) -> BTreeMap<String, String> {
        let shape = match self.shape {
            Shape::Cosine => "cosine",
            Shape::Linear => "linear",
            Shape::Constant => "constant",
        };
        let list = [
            ("lr", self.lr.to_string()),
            ("epochs", self.epochs.to_string()),
            ("batch", self.batch.to_string()),
            ("length", self.length.to_string()),
            ("weight_decay", self.weight_decay.to_string()),
            ("warmup", self.warmup.to_string()),
            ("schedule", format!("{shape} to {}", self.floor)),
            ("clip", self.clip.to_string()),
            ("drop_last", self.drop_last.to_string()),
            ("patience", self.patience.to_string()),
            ("threshold", self.threshold.to_string()),
        ];
        list.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_numbers() {
        let (old, new) = (Preset::Y2024, Preset::Y2026);
        assert_eq!((old.tasks().len(), new.tasks().len()), (11, 7));
        let s = old.settings(Task::Rte);
        assert_eq!((s.lr, s.epochs, s.batch, s.length, s.patience, s.threshold), (5e-5, 10, 64, 128, 3, 0.001));
        assert_eq!((s.weight_decay, s.warmup, s.clip, s.drop_last), (0.0, 0.0, 1.0, false));
        // From the peak in a straight line to 0, ten steps.
        assert_eq!([0, 5, 10].map(|step| s.curve().factor(step, 10)), [1.0, 0.5, 0.0]);
        assert_eq!((s.steps(64), s.steps(65)), (1, 2));

        let s = new.settings(Task::Multirc);
        assert_eq!((s.lr, s.epochs, s.batch, s.length, s.patience), (3e-5, 10, 16, 512, 0));
        assert_eq!((s.weight_decay, s.clip, s.drop_last), (0.01, 0.0, true));
        assert_eq!((new.settings(Task::Rte).batch, new.settings(Task::Wsc).epochs), (32, 30));
        // Six steps of a hundred up, then half a cosine to a tenth.
        let curve = s.curve();
        assert_eq!([0, 3, 6].map(|step| curve.factor(step, 100)), [0.0, 0.5, 1.0]);
        assert!((curve.factor(53, 100) - 0.55).abs() < 1e-12 && (curve.factor(100, 100) - 0.1).abs() < 1e-12);
        assert_eq!((s.steps(31), s.steps(33)), (1, 2));
    }

    #[test]
    fn scores_and_choices() {
        use Metric::{Accuracy, F1, Mcc};
        let of = |preset: Preset, task| (preset.metric(task), preset.chooses_by(task));
        assert_eq!(of(Preset::Y2024, Task::Cola), (Mcc, F1));
        assert_eq!(of(Preset::Y2024, Task::Mrpc), (F1, F1));
        assert_eq!(of(Preset::Y2024, Task::Rte), (Accuracy, F1));
        assert_eq!(of(Preset::Y2024, Task::Mnli), (Accuracy, Accuracy));
        assert_eq!(of(Preset::Y2026, Task::Qqp), (Accuracy, F1));
        assert_eq!(of(Preset::Y2026, Task::Rte), (Accuracy, Accuracy));
    }

    #[test]
    fn wrong_changes_are_named() {
        for (change, words) in [
            ("epochs", "KEY=VALUE"),
            ("epoch=3", "did you mean `epochs`"),
            ("epochs=three", "no number"),
            ("epochs=2.5", "whole number"),
            ("epochs=0", "1 to 10000"),
            ("lr=nan", "0 to 1"),
            ("length=5000", "8 to 4096"),
            ("rtf.lr=1", "did you mean `rte`"),
        ] {
            let mut settings = Preset::Y2026.settings(Task::Rte);
            let error = settings.set(Task::Rte, &[change.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(words), "{change}: {error}");
        }
        let mut settings = Preset::Y2026.settings(Task::Rte);
        settings.set(Task::Rte, &["wsc.lr=1".to_owned()]).unwrap();
        assert_eq!(settings, Preset::Y2026.settings(Task::Rte));
    }
}
