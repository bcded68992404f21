//! Whole steps of small models on an emulated NVIDIA card, against the CPU's. Needs a C++ compiler.

mod common;

use std::sync::Arc;

use antlm::eval::generate::{Generator, Options};
use antlm::eval::score::Scorer;
use antlm::model::{Config, Kind, Model};
use antlm::objective::stream::{Order, Step};
use antlm::objective::{Backend, Objective};
use antlm::recipe::{Recipe, size};
use antlm::text::dataset::Dataset;
use antlm::train::events::{Event, Listener};
use antlm::train::run;
use antlm::train::step::{Outcome, Packing, Stepper, Weights};
use antlm::train::trained::Trained;
use antlm_nn::device::Device;
use antlm_nn::device::Precision;
use antlm_nn::device::cuda::{Cuda, Emulated};
use antlm_nn::rng::Rng;
use antlm_nn::tape::{Dropout, Pool, Tape};
use common::{difference, largest};

/// An emulated card whose threads run in an order of this seed; with ANTLM_CARD in the environment (and feature `cuda`)
/// the first one of this machine.
fn card(seed: u64) -> Device {
    if std::env::var_os("ANTLM_CARD").is_some() {
        return antlm_nn::device::Choice::Cuda(0).open().unwrap().0;
    }
    Device::Cuda(Arc::new(Cuda::new(Arc::new(Emulated::start(seed, 1 << 30).unwrap()))))
}

/// A small model of each family with sizes that fill no warp, with dropout where the family has it; averaged weights,
/// z-loss, several micro-batches a step.
fn recipe(name: &str) -> Recipe {
    let mut recipe = Recipe::load(name, &[]).unwrap();
    let dropout = if recipe.model.kind == Kind::LtgBert { 0.1 } else { 0.0 };
    recipe.model = Config {
        layers: 2,
        hidden: 54,
        heads: 3,
        intermediate: 70,
        vocab_size: 330,
        hidden_dropout: dropout,
        attention_dropout: dropout,
        ..recipe.model
    };
    (recipe.seq_len, recipe.batch.segments, recipe.batch.micro_tokens) = (48, 5, 130);
    (recipe.optimizer.ema_decay, recipe.optimizer.z_loss) = (0.5, 0.01);
    // Adam's update divides by the root of the second moment, so where a gradient is nearly 0 its last bits would become
    // the whole update. With this in the divisor an update follows the gradient smoothly.
    recipe.optimizer.eps = 0.01;
    recipe
}

const FAMILIES: [&str; 2] = ["antlm-ltg-bert-tiny", "antlm-babyllama-tiny"];

type Left = (Vec<Vec<f32>>, Vec<Outcome>);

/// What three steps, one of each objective, leave on a device: parameters, moments, average, gradient; and their outcomes.
fn three_steps(recipe: &Recipe, model: &Model, data: &Dataset, device: &Device) -> Left {
    let params = model.init(1);
    let (grads, rng) = (device.buffer(vec![0.0; params.len()]).unwrap(), Rng::new(2));
    let (order, pool) = (Order::new(rng, data.len()), Pool::of(device.clone()));
    let mut stepper = Stepper { recipe, model, data, rng, order, grads, pool };
    let mut weights = Weights::new(params, true).on(device).unwrap();
    let n = u64::from(recipe.batch.segments);
    let outcomes = (0..).zip([Objective::Clm, Objective::Mlm, Objective::Mntp]).map(|(index, objective)| {
        let at = u64::from(index);
        let positions = at * n..(at + 1) * n;
        let step = Step { index, block: 0, in_block: at, objective, positions, ends_block: false, ends_epoch: None };
        let found = stepper.gradient(&step, &weights, &|| None).unwrap().unwrap();
        stepper.update(&found, 0.003, &mut weights).unwrap();
        found
    });
    let outcomes = outcomes.collect();
    let numbers = [&weights.params, &weights.m, &weights.v, weights.ema.as_ref().unwrap(), &stepper.grads];
    (numbers.map(|x| x.read().unwrap().into_owned()).into(), outcomes)
}

/// The same on the CPU and on a card.
fn on_both(recipe: &Recipe, model: &Model) -> [Left; 2] {
    let folder = tempfile::tempdir().unwrap();
    let data = common::prepared(recipe, 6000, folder.path()).train;
    [Device::Cpu, card(1)].map(|device| three_steps(recipe, model, &data, &device))
}

/// What differs is the order of sums: of attention, of the softmax over the vocabulary, of norms. Each rounds by 6e-8 of
/// itself, some hundred times from the input of a step to the end of the third.
#[test]
fn steps_on_a_card_are_the_cpus() {
    for name in FAMILIES {
        let model = Model::new(&recipe(name).model).unwrap();
        let [(cpu, outcomes), (card, others)] = on_both(&recipe(name), &model);
        for (cpu, card) in outcomes.iter().zip(&others) {
            assert_eq!((cpu.rows, cpu.targets, cpu.words), (card.rows, card.targets, card.words));
            let off = |a: f64, b: f64| (a / b - 1.0).abs();
            assert!(off(card.loss, cpu.loss) < 1e-6, "{name}: loss {} and {}", card.loss, cpu.loss);
            assert!(off(card.grad_norm, cpu.grad_norm) < 1e-5, "{name}: {} and {}", card.grad_norm, cpu.grad_norm);
        }
        for (what, (cpu, card)) in ["weights", "m", "v", "ema", "gradient"].iter().zip(cpu.iter().zip(&card)) {
            for tensor in model.layout().tensors() {
                let (cpu, card) = (&cpu[tensor.range()], &card[tensor.range()]);
                // Below 1e-3 it is sums that cancel: their terms are of about that size.
                let (off, bound) = (difference(card, cpu), 4e-6 * largest(cpu).max(1e-3));
                assert!(off <= bound, "{name}, {what} of {}: off by {off:e}, bound {bound:e}", tensor.name);
            }
        }
    }
}

/// The same with operands in bf16: where an operand lies half-way between two of its numbers, the last bits decide which it
/// becomes, and it moves by 2^-8 of itself.
#[test]
fn steps_in_bf16_are_near_the_cpus() {
    for name in FAMILIES {
        let recipe = Recipe { precision: antlm::recipe::Precision::Bf16, ..recipe(name) };
        let model = Model::new(&recipe.model).unwrap();
        let [(cpu, outcomes), (card, others)] = on_both(&recipe, &model);
        for (cpu, card) in outcomes.iter().zip(&others) {
            let off = |a: f64, b: f64| (a / b - 1.0).abs();
            assert!(off(card.loss, cpu.loss) < 5e-4, "{name}: loss {} and {}", card.loss, cpu.loss);
            assert!(off(card.grad_norm, cpu.grad_norm) < 2e-3, "{name}: {} and {}", card.grad_norm, cpu.grad_norm);
        }
        // Gradient and moments by their size; weights and their average by how far they have come, which is a ratio of
        // moments and so off by twice as much.
        let start = model.init(1);
        for (what, (cpu, card)) in ["weights", "m", "v", "ema", "gradient"].iter().zip(cpu.iter().zip(&card)) {
            for tensor in model.layout().tensors() {
                let (start, cpu, card) = (&start[tensor.range()], &cpu[tensor.range()], &card[tensor.range()]);
                let (size, share) = match *what {
                    "weights" | "ema" => (difference(cpu, start), 0.06),
                    _ => (largest(cpu).max(1e-3), 0.03),
                };
                let off = difference(card, cpu);
                assert!(off <= share * size, "{name}, {what} of {}: off by {off:e} of {size:e}", tensor.name);
            }
        }
    }
}

#[test]
fn goldens_on_a_card() {
    for name in ["ltg-bert", "llama", "llama-tied"] {
        common::goldens_agree(name, &card(9));
    }
}

/// Mean loss and gradient of micro-batches.
fn gradient(
    recipe: &Recipe,
    data: &Dataset,
    objective: Objective,
    device: &Device,
    precision: Precision,
) -> (f64, Vec<f32>) {
    let (model, rng) = (Model::new(&recipe.model).unwrap(), Rng::new(5));
    let batches = Packing { recipe, objective, rng, step: 11 }.batches(data, 0..5);
    assert!(batches.len() > 1);
    let targets: usize = batches.iter().map(|batch| batch.targets.len()).sum();
    let params = device.buffer(model.init(3)).unwrap();
    let (mut grads, mut pool) = (device.buffer(vec![0.0; params.len()]).unwrap(), Pool::of(device.clone()));
    let mut sum = 0.0;
    for batch in &batches {
        let dropout = Some(Dropout { rng, step: 11 });
        let tape = Tape::new(&params, Some(grads.slice_mut()), dropout, &mut pool).unwrap();
        let mut tape = tape.with_precision(precision);
        let nll = model.loss_with_z(&mut tape, batch, 1.0 / targets as f32, 1e-3).unwrap();
        tape.backward().unwrap();
        sum += nll.iter().map(|&x| f64::from(x)).sum::<f64>();
    }
    (sum / targets as f64, grads.read().unwrap().into_owned())
}

/// Heads of more than 64 columns have kernels of their own, and in bf16 none: their attention is f32 then. Of more than 128
/// columns there are none at all.
#[test]
fn wide_heads() {
    let wide = |name: &str, hidden| {
        let mut recipe = recipe(name);
        recipe.model = Config { hidden, heads: 1, layers: 1, ..recipe.model };
        recipe
    };
    for name in FAMILIES {
        let recipe = wide(name, 100);
        let folder = tempfile::tempdir().unwrap();
        let data = common::prepared(&recipe, 6000, folder.path()).train;
        let device = card(3);
        let (loss, exact) = gradient(&recipe, &data, Objective::Mntp, &Device::Cpu, Precision::F32);
        let (same, found) = gradient(&recipe, &data, Objective::Mntp, &device, Precision::F32);
        let (near, _) = gradient(&recipe, &data, Objective::Mntp, &device, Precision::Bf16);
        assert!((same / loss - 1.0).abs() < 1e-6 && (near / loss - 1.0).abs() < 1e-3, "{loss} {same} {near}");
        let (off, bound) = (difference(&found, &exact), 4e-6 * largest(&exact));
        assert!(off <= bound, "{name}: off by {off:e}, bound {bound:e}");

        let (model, mut pool) = (Model::new(&wide(name, 130).model).unwrap(), Pool::of(device.clone()));
        let params = device.buffer(model.init(1)).unwrap();
        let batches = Packing { recipe: &recipe, objective: Objective::Clm, rng: Rng::new(5), step: 0 };
        let batch = &batches.batches(&data, 0..1)[0];
        let mut tape = Tape::new(&params, None, None, &mut pool).unwrap();
        let error = model.loss(&mut tape, batch, 0.0).unwrap_err().to_string();
        assert!(error.contains("at most 128 columns") && error.contains("--device cpu"), "{error}");
    }
}

/// Text that is generated row by row has the logits of the whole, on a card as on the CPU.
#[test]
fn rows_that_come_a_few_at_a_time() {
    for name in FAMILIES {
        let model = Model::new(&recipe(name).model).unwrap();
        let logits = |device: Device| {
            let (params, mut pool) = (device.buffer(model.init(1)).unwrap(), Pool::of(device));
            let mut cache = model.cache(&params, &mut pool).unwrap();
            let mut all = Vec::new();
            for ids in [&[1u32, 7, 9][..], &[30], &[200, 5]] {
                let mut tape = Tape::new(&params, None, None, &mut pool).unwrap();
                let picked: Arc<[u32]> = (0..ids.len() as u32).collect();
                let logits = model.logits_next(&mut tape, &Arc::from(ids), &picked, &mut cache).unwrap();
                all.extend(tape.read(logits).unwrap().iter());
            }
            all
        };
        let (cpu, card) = (logits(Device::Cpu), logits(card(5)));
        assert!(difference(&card, &cpu) <= 4e-6 * largest(&cpu), "{name}");
    }
}

/// Hears what a run says, and lets it go on for some steps.
#[derive(Default)]
struct Heard {
    warnings: Vec<String>,
    losses: Vec<f64>,
}

impl Listener for Heard {
    fn event(&mut self, event: &Event) -> antlm::Result<()> {
        match event {
            Event::Warning { text, .. } => self.warnings.push(text.clone()),
            Event::Step { loss, .. } => self.losses.push(*loss),
            _ => {}
        }
        Ok(())
    }
}

/// A run that begins on the CPU, goes on on a card and ends on the CPU is that of the CPU alone, but for last bits; it says
/// each time that it moves, and a run that stays where it is says nothing.
#[test]
fn checkpoints_move() {
    let mut recipe = recipe(FAMILIES[0]);
    recipe.model = Config { layers: 1, hidden: 24, heads: 2, intermediate: 40, ..recipe.model };
    recipe.schedule = Recipe::load(FAMILIES[0], &["schedule=1 clm + 1 mlm".into()]).unwrap().schedule;
    // A step is one micro-batch.
    (recipe.batch.segments, recipe.batch.micro_tokens) = (8, 4000);
    let folder = tempfile::tempdir().unwrap();
    let train = |out: &str, devices: &[Device]| {
        let out = folder.path().join(out);
        let (mut heard, mut losses) = (Heard::default(), Vec::new());
        for (part, device) in devices.iter().enumerate() {
            let run = match part {
                0 => {
                    let prepared = common::prepared(&recipe, 1500, folder.path());
                    run::create_on(&recipe, prepared, None, &out, device).unwrap()
                }
                _ => run::resume_on(&out, device).unwrap(),
            };
            // Asked before every micro-batch, also of the dev losses: all but the last part stop after a few.
            let asked = std::cell::Cell::new(0);
            let cancel = || {
                asked.set(asked.get() + 1);
                (part + 1 < devices.len() && asked.get() > 5).then_some(15)
            };
            let ended = run.train(&mut heard, &cancel);
            assert_eq!(ended.is_err(), part + 1 < devices.len(), "{:?}", ended.err());
            assert!(!heard.losses.is_empty(), "no step in part {part}");
            losses.append(&mut heard.losses);
        }
        (heard.warnings, losses)
    };
    let (silent, alone) = train("alone", &[Device::Cpu]);
    let (said, moved) = train("moved", &[Device::Cpu, card(1), card(2), Device::Cpu]);
    assert!(silent.is_empty(), "{silent:?}");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("on cpu so far and goes on on cuda") && said[1].contains("goes on on cpu"), "{said:?}");
    assert_eq!(moved.len(), alone.len());
    for (moved, alone) in moved.iter().zip(&alone) {
        assert!((moved / alone - 1.0).abs() < 1e-5, "{moved} {alone}");
    }

    // And what reads the run on a card says what it says on the CPU.
    let read = |device: &Device| {
        let open = || Trained::open(&folder.path().join("moved")).unwrap();
        let mut scorer = Scorer::new(open()).on(device).unwrap();
        let scores = [Backend::Causal, Backend::Mlm].map(|backend| scorer.score("The dogs sleep.", backend).unwrap());
        let mut generator = Generator::new(open()).on(device).unwrap();
        let prompt = generator.read("The dogs").unwrap();
        let options = Options { max_tokens: 4, ..Options::default() };
        (scores.map(|score| score.total), generator.generate(&prompt, 0, &options, &mut |_| Ok(())).unwrap())
    };
    let ((cpu, text), (card, other)) = (read(&Device::Cpu), read(&card(3)));
    assert!(cpu.iter().zip(&card).all(|(cpu, card)| (card / cpu - 1.0).abs() < 1e-5), "{cpu:?} {card:?}");
    assert_eq!((text.ids, text.text), (other.ids, other.text));
}

/// Products of bf16 numbers: each operand is off by up to 1/512 of itself, in either direction. Some sixty roundings lie
/// between the input and the gradients of the first layer; if they add up as a random walk, √60/512 = 0.015 of a tensor's
/// gradient, and twice that is the bound. The loss, which comes after a half of them, moves much less: it is a mean.
#[test]
fn products_in_bf16_are_near_those_in_f32() {
    for name in FAMILIES {
        let recipe = recipe(name);
        let folder = tempfile::tempdir().unwrap();
        let data = common::prepared(&recipe, 6000, folder.path()).train;
        let layout = Model::new(&recipe.model).unwrap().layout().clone();
        let device = card(7);
        for objective in [Objective::Clm, Objective::Mlm] {
            let (loss, exact) = gradient(&recipe, &data, objective, &Device::Cpu, Precision::F32);
            let (other, rounded) = gradient(&recipe, &data, objective, &device, Precision::Bf16);
            assert!((other / loss - 1.0).abs() < 1e-3, "{name} {objective}: loss {other} and {loss}");
            for tensor in layout.tensors() {
                let (exact, rounded) = (&exact[tensor.range()], &rounded[tensor.range()]);
                let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
                let off = norm(&mut exact.iter().zip(rounded).map(|(a, b)| f64::from(a - b)));
                let share = off / norm(&mut exact.iter().map(|&x| f64::from(x)));
                assert!(share < 0.03, "{name} {objective}: gradient of {} by {share} of itself", tensor.name);
                assert!(share > 1e-5, "{name} {objective}: {} is not from rounded numbers", tensor.name);
            }
        }
    }
}

/// The order of threads and blocks decides nothing.
#[test]
fn a_card_gives_the_same_bits_again() {
    let recipe = recipe(FAMILIES[0]);
    let folder = tempfile::tempdir().unwrap();
    let data = common::prepared(&recipe, 6000, folder.path()).train;
    let model = Model::new(&recipe.model).unwrap();
    let bits = |seed| {
        let (numbers, outcomes) = three_steps(&recipe, &model, &data, &card(seed));
        (numbers.concat().iter().map(|x| x.to_bits()).collect::<Vec<u32>>(), outcomes)
    };
    assert!(bits(1) == bits(22));
}

/// What needs a card of a certain size: the emulated one, whatever the environment says.
mod emulated_card {
    use super::*;

    fn of_size(memory: u64) -> Device {
        Device::Cuda(Arc::new(Cuda::new(Arc::new(Emulated::start(1, memory).unwrap()))))
    }

    /// What does not fit is refused before it begins, with what does.
    #[test]
    fn the_plan_finds_what_fits() {
        let mut recipe = recipe(FAMILIES[0]);
        (recipe.batch.segments, recipe.batch.micro_tokens) = (100_000, 4_000_000);
        let whole = recipe.clone();
        let bytes = |rows| size::card_bytes(&whole, rows);
        let rows = size::largest_rows(&recipe, bytes(70_000)).unwrap();
        assert!(bytes(rows) <= bytes(70_000) && bytes(rows + 1) > bytes(70_000), "{rows}");
        let error = size::check_memory_on(&recipe, &of_size(bytes(70_000))).unwrap_err().to_string();
        assert!(error.contains(&format!("batch.micro_tokens={rows} fits")) && error.contains("cuda:0"), "{error}");
        let error = size::check_memory_on(&recipe, &of_size(1_000_000)).unwrap_err().to_string();
        assert!(error.contains("take a smaller model"), "{error}");
        recipe.batch.micro_tokens = rows;
        let words = size::check_memory_on(&recipe, &of_size(bytes(70_000))).unwrap().unwrap();
        assert!(words.contains(&format!("up to {rows} rows fit")), "{words}");
    }

    /// A card that is too small says so, and what to change.
    #[test]
    fn no_memory_left() {
        let recipe = recipe(FAMILIES[1]);
        let folder = tempfile::tempdir().unwrap();
        let data = common::prepared(&recipe, 6000, folder.path()).train;
        let model = Model::new(&recipe.model).unwrap();
        // The parameters and their like are there, a micro-batch is not.
        let device = of_size(4 * 6 * model.layout().len() as u64);
        let (grads, rng) = (device.buffer(vec![0.0; model.layout().len()]).unwrap(), Rng::new(2));
        let (order, pool) = (Order::new(rng, data.len()), Pool::of(device.clone()));
        let mut stepper = Stepper { recipe: &recipe, model: &model, data: &data, rng, order, grads, pool };
        let weights = Weights::new(model.init(1), true).on(&device).unwrap();
        let (objective, positions) = (Objective::Clm, 0..5);
        let step = Step { index: 0, block: 0, in_block: 0, objective, positions, ends_block: false, ends_epoch: None };
        let error = stepper.gradient(&step, &weights, &|| None).unwrap_err().to_string();
        assert!(error.contains("no memory left") && error.contains("batch.micro_tokens"), "{error}");
    }

    /// The plan's bytes, without its guess of what the card itself needs, against the most that three steps take.
    #[test]
    fn the_plan_is_near_what_is_taken() {
        const GUESS: u64 = 600_000_000;
        for (name, precision) in
            [(FAMILIES[0], "f32"), (FAMILIES[0], "bf16"), (FAMILIES[1], "f32"), (FAMILIES[1], "bf16")]
        {
            let mut recipe = recipe(name);
            recipe.precision = Recipe::load(name, &[format!("precision={precision}")]).unwrap().precision;
            recipe.model = Config { hidden: 72, intermediate: 192, ..recipe.model };
            (recipe.batch.segments, recipe.batch.micro_tokens) = (12, 600);
            let folder = tempfile::tempdir().unwrap();
            let data = common::prepared(&recipe, 6000, folder.path()).train;
            let card = Arc::new(Emulated::start(1, 1 << 30).unwrap());
            let device = Device::Cuda(Arc::new(Cuda::new(card.clone())));
            three_steps(&recipe, &Model::new(&recipe.model).unwrap(), &data, &device);
            let planned = size::card_bytes(&recipe, recipe.micro_rows()) - GUESS;
            let ratio = planned as f64 / card.peak() as f64;
            println!("{name} {precision}: {planned} planned, {} taken, {ratio:.2}", card.peak());
            assert!((0.9..1.35).contains(&ratio), "{name} {precision}: {planned} planned, {} taken", card.peak());
        }
    }
}
