//! Whole steps of small models: equal bits for any number of threads, and the same gradient however a step is cut.

mod common;

use antlm::model::{Config, Kind, Model};
use antlm::objective::Objective;
use antlm::objective::stream::{Order, Step};
use antlm::recipe::{Precision, Recipe};
use antlm::text::dataset::Dataset;
use antlm::train::step::{Outcome, Packing, Stepper, Training, Weights, gradient};
use antlm_nn::device::Device;
use antlm_nn::device::Precision as Operands;
use antlm_nn::rng::Rng;
use antlm_nn::tape::{Dropout, Pool};
use common::{difference, largest};

/// A small model of each family with sizes that fill no vector register, with dropout where the family has it.
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
    recipe.seq_len = 80;
    recipe.batch.segments = 12;
    recipe
}

const FAMILIES: [&str; 2] = ["antlm-ltg-bert-tiny", "antlm-babyllama-tiny"];

/// Parameters, moments, gradient and outcomes of three steps, one of each objective.
fn three_steps(recipe: &Recipe, model: &Model, data: &Dataset) -> (Vec<u32>, Vec<Outcome>) {
    let params = model.init(1);
    let zeros = vec![0.0; params.len()];
    let rng = Rng::new(2);
    let mut stepper = Stepper {
        recipe,
        model,
        data,
        rng,
        order: Order::new(rng, data.len()),
        grads: zeros.into(),
        pool: Pool::default(),
    };
    let mut weights = Weights::new(params, recipe.optimizer.ema_decay > 0.0).on(&Device::Cpu).unwrap();
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
    let ema = weights.ema.unwrap_or_default();
    let numbers = [&weights.params, &weights.m, &weights.v, &ema, &stepper.grads].map(|x| x.read().unwrap());
    (numbers.iter().flat_map(|x| x.iter()).map(|x| x.to_bits()).collect(), outcomes)
}

#[test]
fn equal_bits_for_any_number_of_threads() {
    for name in FAMILIES {
        let mut recipe = recipe(name);
        // Two micro-batches of some 500 rows.
        recipe.batch.micro_tokens = 520;
        (recipe.optimizer.ema_decay, recipe.optimizer.z_loss) = (0.5, 0.01);
        let folder = tempfile::tempdir().unwrap();
        let data = common::prepared(&recipe, 6000, folder.path()).train;
        let model = Model::new(&recipe.model).unwrap();
        for precision in [Precision::F32, Precision::Bf16] {
            recipe.precision = precision;
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| three_steps(&recipe, &model, &data))
            };
            let (bits, outcomes) = run(1);
            assert!(
                outcomes.iter().all(|o| o.rows > 400 && o.targets > 40 && o.loss.is_finite()),
                "{name}: {outcomes:?}"
            );
            for threads in 2..=3 {
                let (other, others) = run(threads);
                assert!(bits == other, "{name}: other bits with {threads} threads");
                assert_eq!(outcomes, others, "{name}: {threads} threads");
            }
        }
    }
}

/// The z-loss is in the gradient and not in the loss; the average follows the weights and changes nothing else.
#[test]
fn what_z_loss_and_average_change() {
    let mut recipe = recipe(FAMILIES[0]);
    let folder = tempfile::tempdir().unwrap();
    let data = common::prepared(&recipe, 6000, folder.path()).train;
    let model = Model::new(&recipe.model).unwrap();
    let n = model.layout().len();
    let mut run = |ema, z| {
        (recipe.optimizer.ema_decay, recipe.optimizer.z_loss) = (ema, z);
        three_steps(&recipe, &model, &data)
    };
    let (plain, outcomes) = run(0.0, 0.0);
    let (averaged, same) = run(0.75, 0.0);
    assert_eq!(same, outcomes);
    assert!(averaged[..3 * n] == plain[..3 * n] && averaged[4 * n..] == plain[3 * n..]);
    let ema = &averaged[3 * n..4 * n];
    assert!(ema != &plain[..n] && ema != model.init(1).iter().map(|x| x.to_bits()).collect::<Vec<_>>());
    let (_, other) = run(0.0, 0.1);
    assert_eq!(other[0].loss, outcomes[0].loss);
    assert!(other[0].grad_norm != outcomes[0].grad_norm && other[1].loss != outcomes[1].loss);
}

/// k micro-batches of b segments against one of k·b, with new masks and dropout on.
#[test]
fn micro_batches_add_up_to_the_whole() {
    for name in FAMILIES {
        let mut recipe = recipe(name);
        let folder = tempfile::tempdir().unwrap();
        let data = common::prepared(&recipe, 6000, folder.path()).train;
        let model = Model::new(&recipe.model).unwrap();
        let params = model.init(3);
        // In bf16 the gradient of the relative positions, a sum over all rows of a micro-batch, is itself an operand: each
        // part of it is rounded before the parts meet, by up to 2^-9 in each of its two products, and the parts together
        // may be twice as long as their sum. The rest differs by single roundings that fall the other way.
        let cases = [(Operands::F32, 1e-6, 1e-5), (Operands::Bf16, 1e-4, 1.0 / 128.0)];
        let objectives = [Objective::Clm, Objective::Mlm, Objective::Mntp];
        for (objective, (precision, of_loss, of_gradient)) in
            objectives.into_iter().flat_map(|objective| cases.map(|case| (objective, case)))
        {
            let mut run = |micro_tokens| {
                recipe.batch.micro_tokens = micro_tokens;
                let rng = Rng::new(5);
                let batches = Packing { recipe: &recipe, objective, rng, step: 11 }.batches(&data, 0..12);
                let (mut grads, mut pool) = (vec![0.0; params.len()], Pool::default());
                let dropout = Some(Dropout { rng, step: 11 });
                let training = Training { dropout, z_loss: 1e-3, precision };
                let done = gradient(&model, &params, &batches, training, &mut grads, &mut pool).unwrap();
                (batches.len(), done, grads)
            };
            let (one, (loss, rows, targets), whole) = run(1 << 20);
            assert_eq!(one, 1);
            for micro_tokens in [80, 170, 400] {
                let (count, (other, other_rows, other_targets), parts) = run(micro_tokens);
                let case = format!("{name} {objective} {precision:?} in {count} micro-batches");
                assert!(count > 1, "{case}");
                assert_eq!((rows, targets), (other_rows, other_targets), "{case}");
                assert!((loss - other).abs() < of_loss * loss, "{case}: loss {loss}, {other}");
                for tensor in model.layout().tensors() {
                    let (whole, parts) = (&whole[tensor.range()], &parts[tensor.range()]);
                    let off = difference(parts, whole);
                    assert!(
                        off <= of_gradient * largest(whole),
                        "{case}: {} by {off} of {}",
                        tensor.name,
                        largest(whole)
                    );
                }
            }
        }
    }
}
