use super::*;
use crate::rng::Rng;
use candle_core::Device;

fn random(rng: &mut Rng, shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| rng.uniform(1.0)).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn geometry(
    channels: usize,
    out: usize,
    size: [usize; 2],
    [kernel, stride, padding, dilation, groups]: [usize; 5],
) -> Geometry {
    let len = |n: usize| (n + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
    let [h, w] = size;
    Geometry { channels, h, w, out, out_h: len(h), out_w: len(w), kernel, stride, padding, dilation, groups }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap()
}

/// Both algorithms against the tensor library's own convolution.
#[test]
fn equals_the_library_on_odd_shapes_strides_and_paddings() {
    let mut rng = Rng::named(7, "conv");
    let settings = [
        [3, 1, 1, 1, 1],
        [3, 1, 0, 1, 1],
        [3, 1, 2, 1, 1],
        [3, 1, 3, 1, 1],
        [3, 2, 1, 1, 1],
        [1, 1, 0, 1, 1],
        [1, 2, 0, 1, 1],
        [5, 1, 2, 1, 1],
        [5, 3, 1, 1, 1],
        [2, 2, 0, 1, 1],
        [3, 1, 2, 2, 1],
        [3, 2, 3, 3, 1],
        [3, 1, 1, 1, 4],
        [3, 2, 1, 1, 8],
    ];
    let mut winograd = 0;
    for setting in settings {
        for (channels, out) in [(8, 16), (16, 8), (24, 24)] {
            for size in [[7, 7], [8, 5], [9, 12]] {
                for n in [1, 3] {
                    let g = geometry(channels, out, size, setting);
                    winograd += usize::from(use_winograd(&g));
                    let x = random(&mut rng, &[n, channels, g.h, g.w]);
                    let weight = random(&mut rng, &[out, channels / g.groups, g.kernel, g.kernel]);
                    let bias = random(&mut rng, &[out]);
                    let expected = x.conv2d(&weight, g.padding, g.stride, g.dilation, g.groups).unwrap();
                    let expected = expected.broadcast_add(&bias.reshape((1, out, 1, 1)).unwrap()).unwrap();
                    let packed = pack(&g, &weight).unwrap();
                    let found = forward(&g, &x, &packed, Some(&bias), false).unwrap();
                    assert!(largest_difference(&found, &expected) < 1e-4, "{g:?}");
                    let found = forward(&g, &x, &packed, Some(&bias), true).unwrap();
                    assert!(largest_difference(&found, &expected.relu().unwrap()) < 1e-4, "{g:?}");
                }
            }
        }
    }
    assert!(winograd > 20, "the cases must exercise both algorithms");
}

/// Few channels, a map of one cell, one output channel: the edges of the blocking.
#[test]
fn equals_the_library_at_the_extremes() {
    let mut rng = Rng::named(8, "conv");
    for (channels, out, size) in [(1, 1, [1, 1]), (3, 5, [1, 4]), (8, 8, [1, 1]), (8, 8, [2, 1]), (64, 8, [33, 31])] {
        let g = geometry(channels, out, size, [3, 1, 1, 1, 1]);
        let x = random(&mut rng, &[5, channels, g.h, g.w]);
        let weight = random(&mut rng, &[out, channels, 3, 3]);
        let expected = x.conv2d(&weight, 1, 1, 1, 1).unwrap();
        let found = forward(&g, &x, &pack(&g, &weight).unwrap(), None, false).unwrap();
        assert!(largest_difference(&found, &expected) < 1e-4, "{g:?}");
    }
}

#[test]
fn a_rows_result_does_not_depend_on_its_batch() {
    let mut rng = Rng::named(9, "conv");
    for setting in [[3, 1, 1, 1, 1], [3, 2, 1, 1, 1], [3, 1, 1, 1, 8]] {
        for size in [[2, 2], [1, 1], [9, 9]] {
            let g = geometry(72, 64, size, setting);
            let x = random(&mut rng, &[33, 72, g.h, g.w]);
            let packed = pack(&g, &random(&mut rng, &[64, 72 / g.groups, 3, 3])).unwrap();
            let all = forward(&g, &x, &packed, None, true).unwrap();
            for (start, len) in [(0, 1), (5, 1), (32, 1), (7, 20)] {
                let part = forward(&g, &x.narrow(0, start, len).unwrap(), &packed, None, true).unwrap();
                let same = all.narrow(0, start, len).unwrap();
                assert_eq!(largest_difference(&part, &same), 0.0, "{g:?} {start} {len}");
            }
        }
    }
}

#[test]
fn nan_passes_through() {
    let g = geometry(8, 8, [4, 4], [3, 1, 1, 1, 1]);
    let x = Tensor::full(f32::NAN, (1, 8, 4, 4), &Device::Cpu).unwrap();
    let packed = pack(&g, &Tensor::ones((8, 8, 3, 3), candle_core::DType::F32, &Device::Cpu).unwrap()).unwrap();
    let found = forward(&g, &x, &packed, None, true).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(found.iter().all(|v| v.is_nan()));
}

/// Gradients of a weighted sum of the output, against the library's own.
#[test]
fn gradients_equal_the_library() {
    let mut rng = Rng::named(10, "conv");
    for ([kernel, padding], relu) in [([3, 1], false), ([3, 0], true), ([3, 2], true), ([1, 0], false), ([2, 1], true)]
    {
        for (channels, out, n) in [(8, 12, 5), (3, 4, 1)] {
            let g = geometry(channels, out, [7, 6], [kernel, 1, padding, 1, 1]);
            let var = |t: Tensor| candle_core::Var::from_tensor(&t).unwrap();
            let x = var(random(&mut rng, &[n, channels, 7, 6]));
            let weight = var(random(&mut rng, &[out, channels, kernel, kernel]));
            let bias = var(random(&mut rng, &[out]));
            let factors = random(&mut rng, &[n, out, g.out_h, g.out_w]);
            let gradients = |y: Tensor| {
                let store = (y * &factors).unwrap().sum_all().unwrap().backward().unwrap();
                [&x, &weight, &bias].map(|v| store.get(v).unwrap().clone())
            };
            let ours = x.apply_op3(&weight, &bias, TrainedConv::new(g, relu).unwrap()).unwrap();
            let theirs = x.conv2d(&weight, padding, 1, 1, 1).unwrap();
            let theirs = theirs.broadcast_add(&bias.reshape((1, out, 1, 1)).unwrap()).unwrap();
            let theirs = if relu { theirs.relu().unwrap() } else { theirs };
            for (found, expected) in gradients(ours).iter().zip(&gradients(theirs)) {
                assert!(largest_difference(found, expected) < 1e-4, "{g:?}");
            }
        }
    }
}
