//! A network whose outputs are too large for the cache is logged slice by slice: what is stored is what a RERUN of whole
//! batches gives, also where a log goes on amid a slice.

use mistique::{
    ChunkReader, Device, Input, ModelKey, Network, NetworkRerun, PlanChoice, Request, RunOptions, Spec, Store, Weights,
    log_intermediates,
};

const ROWS: usize = 90;

#[test]
fn what_is_logged_in_slices_is_what_a_rerun_gives() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.npy");
    let values: Vec<f32> = (0..ROWS * 3072).map(|i| ((i * 7919) % 1009) as f32 / 504.0 - 1.0).collect();
    mistique::datasets::write_npy(std::fs::File::create(&file).unwrap(), &[ROWS, 3, 32, 32], &values).unwrap();
    let spec: Spec = format!("npy:{}", file.display()).parse().unwrap();
    let dataset = mistique::datasets::open(&spec).unwrap();
    let input = Input { name: "images".into(), spec: &spec, dataset: &*dataset };
    let network = Network::builtin("cifar10_cnn").unwrap();
    let weights = Weights::init(&network, 3);
    let store = Store::open_or_create(dir.path().join("s.mq")).unwrap();
    let key = ModelKey::new("p", "m");
    let mut run_rows = Vec::new();
    for rows in [0..30, 0..ROWS as u64, 0..ROWS as u64] {
        let options =
            RunOptions { scheme: Some("f32".parse().unwrap()), rows: Some(rows), ..RunOptions::new().unwrap() };
        let report = log_intermediates(&store, &key, &network, &weights, &input, &options, &mut |_| {}).unwrap();
        run_rows.push(report.run_rows);
    }
    // Rows are run by the batch; what is stored already is not run again.
    assert_eq!(run_rows, [30, ROWS as u64, 0]);
    let reader = || ChunkReader::new(&store).with_workflow(Box::new(NetworkRerun::new(&store, Device::Cpu)));
    for layer in network.layers() {
        let request = Request::new(format!("p.m.{}", layer.name()).parse().unwrap());
        let values = |plan| reader().get(&request.clone().with_plan(plan)).unwrap().into_f32().unwrap();
        let (stored, rerun) = (values(PlanChoice::READ), values(PlanChoice::RERUN));
        assert_eq!(stored.len(), ROWS * layer.shape().iter().product::<usize>(), "{}", layer.name());
        assert!(stored.iter().zip(&rerun).all(|(a, b)| a.to_bits() == b.to_bits()), "{}", layer.name());
        assert!(stored.len() == rerun.len() && stored.iter().any(|x| *x != 0.0), "{}", layer.name());
    }
}
