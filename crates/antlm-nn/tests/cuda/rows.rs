//! Rows that are looked up and added up, and sums of columns.

use antlm_nn::kernels::{add_assign, add_column_sums};

use super::card::grid;
use super::{assert_bits, below, random, run};
use crate::arguments;

/// The places of `ids`, sorted by id: different ids, where each begins, places.
fn by_id(ids: &[u32]) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|&place| ids[place as usize]);
    let (mut unique, mut starts) = (Vec::new(), Vec::new());
    for (i, &place) in order.iter().enumerate() {
        let id = ids[place as usize];
        if unique.last() != Some(&id) {
            unique.push(id);
            starts.push(i as u32);
        }
    }
    starts.push(ids.len() as u32);
    (unique, starts, order)
}

#[test]
fn rows_are_looked_up_and_added_up() {
    for (n, d, vocab) in [(1, 1, 1), (7, 33, 100), (200, 130, 5), (65, 64, 65)] {
        let (ids, table, gy, before) =
            (below(1, n, vocab), random(2, vocab * d, 1.0), random(3, n * d, 1.0), random(4, vocab * d, 1.0));
        let y: Vec<f32> = ids.iter().flat_map(|&id| table[id as usize * d..][..d].to_vec()).collect();
        let mut gtable = before.clone();
        for (gy, &id) in gy.chunks_exact(d).zip(&ids) {
            gtable[id as usize * d..][..d].iter_mut().zip(gy).for_each(|(g, x)| *g += x);
        }
        let (unique, starts, order) = by_id(&ids);
        let got = run(|card| {
            let (ids, table, y) = (card.put(&ids), card.put(&table), card.room(n * d));
            card.launch("gather_rows", grid(n, d.div_ceil(128), 128), arguments![d, &table, &ids, &y]);
            let (starts, order, gy) = (card.put(&starts), card.put(&order), card.put(&gy));
            let (there, gtable) = (card.put(&unique), card.put(&before));
            let operands = arguments![d, &there, &starts, &order, &gy, &gtable];
            card.launch("scatter_rows", grid(unique.len(), d.div_ceil(128), 128), operands);
            vec![card.get(&y), card.get(&gtable)]
        });
        assert_bits("rows", &got[0], &y);
        assert_bits("gradient", &got[1], &gtable);
    }
}

#[test]
fn sums() {
    for (n, cols) in [(1, 1), (64, 5), (65, 129), (300, 40)] {
        let (x, before, other) = (random(1, n * cols, 1.0), random(2, cols, 1.0), random(3, n * cols, 1.0));
        let (mut sums, mut both) = (before.clone(), other.clone());
        add_column_sums(&x, &mut sums);
        add_assign(&mut both, &x);
        let got = run(|card| {
            let (x, partials, sums) = (card.put(&x), card.room::<f32>(n.div_ceil(64) * cols), card.put(&before));
            let blocks = n.div_ceil(64);
            card.launch("column_sums", grid(cols.div_ceil(128), blocks, 128), arguments![n, cols, &x, &partials]);
            card.launch("add_partials", grid(cols.div_ceil(128), 1, 128), arguments![blocks, cols, &partials, &sums]);
            let both = card.put(&other);
            card.launch("add_assign", grid(3, 1, 256), arguments![(n * cols) as u64, &x, &both]);
            vec![card.get(&sums), card.get(&both)]
        });
        assert_bits("sums", &got[0], &sums);
        assert_bits("sum of two", &got[1], &both);
    }
}

#[test]
fn operands_of_products() {
    for n in [1, 2, 513, 2000] {
        let x = random(1, n, 3.0);
        let got = run(|card| {
            let (x, y) = (card.put(&x), card.room::<u16>(n));
            card.launch("to_bf16", grid(2, 1, 256), arguments![n as u64, &x, &y]);
            vec![card.get(&y).into_iter().map(|y| f32::from_bits(u32::from(y) << 16)).collect()]
        });
        for (x, y) in x.iter().zip(&got[0]) {
            assert!((x - y).abs() <= x.abs() / 256.0 && y.to_bits() & 0xffff == 0, "{x} {y}");
        }
    }
}
