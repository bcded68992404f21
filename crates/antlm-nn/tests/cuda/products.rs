//! Products as the operations ask for them: with a bias, a residual, onto gradients, in both precisions; and the weights'
//! mirror in bf16.

use std::sync::Arc;

use antlm_nn::device::cuda::{Cuda, Emulated, open};
use antlm_nn::device::{Buffer, Device, Linear, Precision, Slice, Trained};
use antlm_nn::optim::{Optimizer, Rule, Update};
use antlm_nn::params::{Init, Layout};

use super::{assert_bits, assert_close_to, card, random};

fn device() -> Device {
    let cuda = if card::real() { open(0).unwrap() } else { Cuda::new(Arc::new(Emulated::start(5, 1 << 30).unwrap())) };
    Device::Cuda(Arc::new(cuda))
}

/// To nearest even.
fn rounded(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| f32::from_bits((x.to_bits() + 0x7fff + (x.to_bits() >> 16 & 1)) & 0xffff_0000)).collect()
}

/// Rows, columns in, columns out: odd ones, no row, one row, one column, more than a tile.
const SHAPES: [(usize, usize, usize); 7] =
    [(0, 5, 3), (1, 1, 1), (1, 64, 33), (7, 5, 3), (64, 16, 128), (33, 100, 1), (130, 54, 70)];

#[test]
fn linear_layers() {
    for (n, inner, out) in SHAPES {
        let (x, w, bias) = (random(1, n * inner, 1.0), random(2, out * inner, 1.0), random(3, out, 1.0));
        let (residual, gy, before) = (random(4, n * out, 1.0), random(5, n * out, 1.0), random(6, n * inner, 1.0));
        let gbefore = random(7, out * inner, 1.0);
        for precision in [Precision::F32, Precision::Bf16] {
            let near = |x: &[f32]| if precision == Precision::Bf16 { rounded(x) } else { x.to_vec() };
            for (with_bias, with_residual, add) in [(false, false, true), (true, false, false), (true, true, true)] {
                // The CPU's, in f32 of operands that are rounded already.
                let run = |device: &Device, precision, x: &[f32], w: &[f32], gy: &[f32]| {
                    let [x, w, gy] = [x, w, gy].map(|values| device.buffer(values.to_vec()).unwrap());
                    let [bias, residual] = [&bias, &residual].map(|values| device.buffer(values.clone()).unwrap());
                    let mut y = device.buffer(vec![f32::NAN; n * out]).unwrap();
                    let of = Linear { n, inner, out, weight: w.slice(), precision };
                    let some = |with: bool, values| with.then_some(Slice::from(values));
                    let (bias, residual) = (some(with_bias, &bias), some(with_residual, &residual));
                    device.linear(of, x.slice(), bias, residual, y.slice_mut()).unwrap();
                    let [mut gw, mut gx] = [&gbefore, &before].map(|values| device.buffer(values.clone()).unwrap());
                    // Of the two gradients, one is added to what is there and one written.
                    let to = ((gw.slice_mut(), !add), (gx.slice_mut(), add));
                    device.linear_backward(of, x.slice(), gy.slice(), to.0, to.1).unwrap();
                    [y, gw, gx].map(|values| values.read().unwrap().into_owned())
                };
                let want = run(&Device::Cpu, Precision::F32, &near(&x), &near(&w), &near(&gy));
                let got = run(&device(), precision, &x, &w, &gy);
                for (what, (got, want)) in ["y", "gw", "gx"].iter().zip(got.iter().zip(&want)) {
                    let what = format!("{what} of {n} x {inner} x {out}, {precision:?}, {with_bias} {with_residual}");
                    // Sums in another order, of terms up to 1.
                    assert_close_to(&what, got, want, 2e-6, 1.0);
                }
            }
        }
    }
}

/// Whoever writes the weights, a product has those of now.
#[test]
fn the_mirror_follows_the_weights() {
    let (n, inner, out) = (3, 40, 24);
    let mut layout = Layout::default();
    layout.add("norm".to_owned(), &[7], Init::Ones, false);
    let view = layout.add("weight".to_owned(), &[out, inner], Init::Ones, true);
    let (x, start, grads) = (random(1, n * inner, 1.0), random(2, layout.len(), 1.0), random(3, layout.len(), 1.0));
    for rule in [Rule::AdamW, Rule::Lamb] {
        let device = device();
        let mut params = device.buffer(start.clone()).unwrap();
        let (there, grads) = (device.buffer(x.clone()).unwrap(), device.buffer(grads.clone()).unwrap());
        let [mut m, mut v] = [(); 2].map(|()| device.buffer(vec![0.0; layout.len()]).unwrap());
        let product = |params: &Buffer| {
            let mut y = device.buffer(vec![f32::NAN; n * out]).unwrap();
            let weight = params.slice().part(view.range());
            let of = Linear { n, inner, out, weight, precision: Precision::Bf16 };
            device.linear(of, there.slice(), None, None, y.slice_mut()).unwrap();
            y.read().unwrap().into_owned()
        };
        // A buffer that has just been made has no mirror yet.
        let anew = |params: &Buffer| product(&device.buffer(params.read().unwrap().into_owned()).unwrap());
        let mut seen = vec![product(&params)];
        assert_bits("at first", &seen[0], &anew(&params));
        let optimizer = Optimizer { rule, beta1: 0.9, beta2: 0.98, eps: 1e-6, weight_decay: 0.1 };
        for t in 1..3 {
            let (m, v) = (m.slice_mut(), v.slice_mut());
            let of = Trained { params: params.slice_mut(), grads: grads.slice(), m, v, average: None };
            device.update(&optimizer, &layout, of, Update { t, lr: 0.05, grad_scale: 1.0 }).unwrap();
            seen.push(product(&params));
            assert_bits("after an update", seen.last().unwrap(), &anew(&params));
        }
        let other = device.buffer(random(9, view.range().len(), 1.0)).unwrap();
        device.copy(other.slice(), params.slice_mut().part(view.range())).unwrap();
        seen.push(product(&params));
        assert_bits("after a copy", seen.last().unwrap(), &anew(&params));
        device.clear(params.slice_mut()).unwrap();
        assert_bits("after it was cleared", &product(&params), &vec![0.0; n * out]);
        assert!(seen.windows(2).all(|two| two[0] != two[1]));
    }
}
