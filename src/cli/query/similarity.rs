//! `mistique query svcca | cca | pwcca | cka`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use arrow::datatypes::DataType;
use clap::Args;
use serde_json::{Value, json};

use super::{PlanArgs, RowArgs};
use crate::cli::inspect::matches;
use crate::cli::output::{Rows, count, float, number, pretty};
use crate::cli::progress::Progress;
use crate::cli::{CliError, Result, file_error};
use crate::diagnostics::{MapsAs, Measure, Similarities, similarities};
use crate::engine_types::nearest;
use crate::{Content, EngineError, HeatMap, IntermediateKey, Key, Picture, QueryError, Request, Store};

#[derive(Debug, Args)]
pub struct SidesArgs {
    /// An intermediate, units of one (p.m.logits.u3: one class), or several by * and ?, such as 'p.m.*' or 'p.m@*.conv2' (tables with text are none).
    left: String,
    /// What it is compared with; itself for none.
    right: Option<String>,
    /// Compare each with its own last version: rows are layers, columns versions.
    #[arg(long, conflicts_with = "right")]
    final_self: bool,
    /// What becomes of maps: their mean, cells as data points (as SVCCA's paper does), or cells as columns.
    #[arg(long, value_enum, default_value = "mean")]
    maps: MapsArg,
    /// Draw the matrix: .png or .svg.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    rows: RowArgs,
    #[command(flatten)]
    plan: PlanArgs,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum MapsArg {
    Mean,
    Points,
    Columns,
}

#[derive(Debug, Args)]
pub struct SvccaArgs {
    /// Share of each side's variance that is kept.
    #[arg(long, default_value_t = 0.99)]
    threshold: f64,
    #[command(flatten)]
    sides: SidesArgs,
}

#[derive(Debug, Args)]
pub struct CcaArgs {
    #[command(flatten)]
    sides: SidesArgs,
}

#[derive(Debug, Args)]
pub struct CkaArgs {
    /// Kernel.
    #[arg(long, value_enum, default_value = "linear")]
    kernel: Kernel,
    /// Bandwidth of the rbf kernel, as a share of the median distance.
    #[arg(long, default_value_t = 1.0)]
    bandwidth: f64,
    /// Data points that enter the rbf kernel at most; more are thinned evenly.
    #[arg(long, default_value_t = 10_000)]
    max_points: usize,
    #[command(flatten)]
    sides: SidesArgs,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kernel {
    Linear,
    Rbf,
}

pub fn svcca(args: &SvccaArgs, store: &Store, as_json: bool) -> Result<String> {
    run(&args.sides, Measure::Svcca { threshold: args.threshold }, store, as_json)
}

pub fn cca(args: &CcaArgs, store: &Store, as_json: bool) -> Result<String> {
    run(&args.sides, Measure::Cca, store, as_json)
}

pub fn pwcca(args: &CcaArgs, store: &Store, as_json: bool) -> Result<String> {
    run(&args.sides, Measure::Pwcca, store, as_json)
}

pub fn cka(args: &CkaArgs, store: &Store, as_json: bool) -> Result<String> {
    let measure = match args.kernel {
        Kernel::Linear => Measure::LinearCka,
        Kernel::Rbf => Measure::RbfCka { fraction: args.bandwidth, max_points: args.max_points },
    };
    run(&args.sides, measure, store, as_json)
}

/// Which cells of the matrix are which pairs of keys.
struct Matrix {
    keys: Vec<Key>,
    rows: Vec<String>,
    columns: Vec<String>,
    /// rows × columns; a cell may be empty.
    cells: Vec<Option<(usize, usize)>>,
    axes: (&'static str, &'static str),
}

fn run(args: &SidesArgs, measure: Measure, store: &Store, as_json: bool) -> Result<String> {
    let picture = args.output.as_deref().map(Picture::of).transpose()?;
    let left = expand(store, &args.left)?;
    let matrix = match (args.final_self, &args.right) {
        (true, _) => final_selves(left)?,
        (_, Some(right)) => every_pair(left, Some(expand(store, right)?)),
        _ => every_pair(left, None),
    };
    let selection = args.rows.selection()?;
    let request = |k: &Key| Ok::<Request, CliError>(args.plan.request(&k.to_string())?.with_rows(selection.clone()));
    let requests = matrix.keys.iter().map(request).collect::<Result<Vec<_>>>()?;
    let pairs: Vec<(usize, usize)> = matrix.cells.iter().flatten().copied().collect();
    let maps = match args.maps {
        MapsArg::Mean => MapsAs::Mean,
        MapsArg::Points => MapsAs::Points,
        MapsArg::Columns => MapsAs::Columns,
    };
    let mut progress = Progress::rows("comparing", as_json);
    let reader = args.plan.reader(store);
    let found = similarities(&reader, &requests, &pairs, measure, maps, &mut |a, b| progress.at(a, b));
    progress.finish();
    let mut found = found?;
    // A pair that has no answer is a gap in a matrix, and an error alone.
    if let [only] = &mut found.values[..]
        && only.is_err()
    {
        return Err(std::mem::replace(only, Err(nothing())).err().unwrap_or_else(nothing).into());
    }
    let mut values = found.values.iter();
    let cells: Vec<f64> = matrix
        .cells
        .iter()
        .map(|c| c.and_then(|_| values.next()).and_then(|v| v.as_ref().ok()).map_or(f64::NAN, |s| s.value))
        .collect();
    if let (Some(path), Some(picture)) = (&args.output, picture) {
        let title = format!("{} of {} rows, {}", measure.name(), count(found.n_rows), maps.describe());
        let map = HeatMap::new(matrix.rows.clone(), matrix.columns.clone(), cells.clone())?
            .with_title(title)
            .with_axes(matrix.axes.0, matrix.axes.1)
            .with_quantity(measure.name())
            .with_range(0.0, 1.0);
        std::fs::write(path, map.render(picture)?).map_err(file_error(path))?;
    }
    if as_json {
        return Ok(pretty(&as_value(&matrix, &pairs, &found, measure)));
    }
    Ok(text(&matrix, &cells, &found, measure))
}

fn nothing() -> QueryError {
    QueryError::Undefined { what: "similarity".into(), why: "nothing was compared".into() }
}

fn every_pair(left: Vec<Key>, right: Option<Vec<Key>>) -> Matrix {
    let n = left.len();
    let mut keys = left;
    let columns: Vec<usize> = match right {
        None => (0..n).collect(),
        Some(right) => right
            .into_iter()
            .map(|k| {
                keys.iter().position(|o| *o == k).unwrap_or_else(|| {
                    keys.push(k);
                    keys.len() - 1
                })
            })
            .collect(),
    };
    let names = labels(&keys);
    let name = |i: usize| names.get(i).cloned().unwrap_or_default();
    let cells = (0..n).flat_map(|r| columns.iter().map(move |c| Some((r, *c)))).collect();
    let column_names = columns.iter().map(|c| name(*c)).collect();
    Matrix { rows: (0..n).map(name).collect(), columns: column_names, cells, keys, axes: ("", "") }
}

/// Every version of a layer against its last.
fn final_selves(keys: Vec<Key>) -> Result<Matrix> {
    let mut rows: Vec<String> = Vec::new();
    let mut versions: Vec<String> = Vec::new();
    let mut places: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (i, key) in keys.iter().enumerate() {
        let IntermediateKey { model, intermediate } = &key.intermediate;
        if model.version.is_empty() {
            let why = format!("{key} has no version to compare with its last; name several, as in 'p.m@*.conv2'");
            return Err(CliError::Usage(why));
        }
        let place = |list: &mut Vec<String>, name: String| {
            list.iter().position(|n| *n == name).unwrap_or_else(|| {
                list.push(name);
                list.len() - 1
            })
        };
        let row = place(&mut rows, format!("{}.{}.{intermediate}", model.project, model.model));
        places.insert((row, place(&mut versions, model.version.clone())), i);
    }
    let last = |row: usize| (0..versions.len()).rev().find_map(|v| places.get(&(row, v)).copied());
    let all = (0..rows.len()).flat_map(|r| (0..versions.len()).map(move |v| (r, v)));
    let cells = all.map(|(r, v)| Some((places.get(&(r, v)).copied()?, last(r)?))).collect();
    let same = |text: &str| text.rsplit_once('.').map_or(String::new(), |(model, _)| model.to_string());
    let one_model = rows.first().is_some_and(|first| rows.iter().all(|r| same(r) == same(first)));
    if one_model {
        rows.iter_mut().for_each(|r| *r = r.rsplit_once('.').map_or(r.clone(), |(_, layer)| layer.to_string()));
    }
    Ok(Matrix { keys, rows, columns: versions, cells, axes: ("layer", "version, against the last") })
}

/// The intermediates that a key or a pattern names, versions in the order of their logs.
fn expand(store: &Store, text: &str) -> Result<Vec<Key>> {
    let key: Key = text.parse()?;
    let wanted = &key.intermediate;
    match store.intermediate(wanted) {
        Ok(record) => return Ok(vec![Key { intermediate: record.key, columns: key.columns }]),
        Err(EngineError::NotFound { .. }) => {}
        Err(e) => return Err(e.into()),
    }
    let models = store.models()?;
    let named = |m: &&crate::ModelRecord| {
        matches(&wanted.model.project, &m.spec.key.project) && matches(&wanted.model.model, &m.spec.key.model)
    };
    let (mut keys, mut others) = (Vec::new(), Vec::new());
    for model in models.iter().filter(named) {
        let version = &model.spec.key.version;
        // Without a version, the model that has none, else the one logged last.
        let is_meant = || {
            let same = |m: &&crate::ModelRecord| {
                (&m.spec.key.project, &m.spec.key.model) == (&model.spec.key.project, &model.spec.key.model)
            };
            let plain = models.iter().filter(same).find(|m| m.spec.key.version.is_empty());
            plain.or(models.iter().rfind(same)).is_some_and(|m| m.id == model.id)
        };
        let fits = if wanted.model.version.is_empty() {
            is_meant()
        } else {
            !version.is_empty() && matches(&wanted.model.version, version)
        };
        if !fits {
            continue;
        }
        for record in store.intermediates(model)? {
            if matches(&wanted.intermediate, &record.key.intermediate) && is_numbers(&record.content) {
                keys.push(Key { intermediate: record.key, columns: key.columns.clone() });
            } else {
                others.push(record.key.to_string());
            }
        }
    }
    if keys.is_empty() {
        let of_models = || models.iter().map(|m| m.spec.key.to_string()).collect();
        let known: Vec<String> = if others.is_empty() { of_models() } else { others };
        let (what, name) = ("intermediate", wanted.to_string());
        let nearest = nearest(&name, known.iter().map(String::as_str), 3);
        return Err(EngineError::NotFound { what, name, nearest }.into());
    }
    Ok(keys)
}

/// Whether a pattern means it: the labels' table, which has names, is no layer.
fn is_numbers(content: &Content) -> bool {
    match content {
        Content::Tensor(_) => true,
        Content::Table(t) => t.schema.fields().iter().all(|f| *f.data_type() != DataType::Utf8),
    }
}

/// Keys without what all of them share.
fn labels(keys: &[Key]) -> Vec<String> {
    let all = |part: fn(&Key) -> String| keys.first().is_some_and(|f| keys.iter().all(|k| part(k) == part(f)));
    let model = |k: &Key| format!("{}.{}", k.intermediate.model.project, k.intermediate.model.model);
    let version = |k: &Key| k.intermediate.model.version.clone();
    let layer = |k: &Key| k.intermediate.intermediate.clone();
    let (same_model, same_version, same_layer) = (all(model), all(version), all(layer));
    let label = |k: &Key| {
        let mut parts = Vec::new();
        if !same_model {
            parts.push(model(k));
        }
        if !same_version {
            parts.push(version(k));
        }
        if !same_layer || parts.is_empty() {
            parts.push(layer(k));
        }
        parts.extend(k.columns.as_ref().map(|(c, _)| c.clone()));
        parts.join(".")
    };
    keys.iter().map(label).collect()
}

fn as_value(matrix: &Matrix, pairs: &[(usize, usize)], found: &Similarities, measure: Measure) -> Value {
    let key = |i: usize| matrix.keys.get(i).map(ToString::to_string);
    let sides: Vec<Value> = found
        .sides
        .iter()
        .zip(&matrix.keys)
        .map(|(s, k)| {
            json!({"key": k.to_string(), "source": s.source.to_string(), "columns": s.n_columns,
                   "rows_not_shared": s.unshared, "text_left_out": s.left_out})
        })
        .collect();
    let pair = |(&(a, b), value): (&(usize, usize), &std::result::Result<_, QueryError>)| match value {
        Ok(crate::diagnostics::Similarity { value, coefficients, directions, constant }) => {
            json!({"left": key(a), "right": key(b), "value": number(*value), "coefficients": coefficients,
                   "directions": directions, "constant_columns": constant})
        }
        Err(why) => json!({"left": key(a), "right": key(b), "value": null, "why": why.to_string()}),
    };
    let values: Vec<Value> = pairs.iter().zip(&found.values).map(pair).collect();
    json!({"measure": measure.name(), "maps": found.maps.describe(), "rows": found.n_rows,
           "data_points": found.n_points, "sides": sides, "pairs": values})
}

fn text(matrix: &Matrix, cells: &[f64], found: &Similarities, measure: Measure) -> String {
    let mut out = String::new();
    if let ([a, b] | [a, b, ..], [Ok(one)]) = (&both(matrix)[..], &found.values[..]) {
        out += &format!("{} of {a} with {b}: {}\n", measure.name(), float(one.value));
        if !one.coefficients.is_empty() {
            let shown: Vec<String> = one.coefficients.iter().take(8).map(|c| format!("{c:.4}")).collect();
            let more = one.coefficients.len().saturating_sub(shown.len());
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            out += &format!("coefficients: {}{more}\n", shown.join(" "));
        }
        out += &format!("directions kept: {} and {}", one.directions[0], one.directions[1]);
        if one.constant != [0, 0] {
            out += &format!("; constant columns left out: {} and {}", one.constant[0], one.constant[1]);
        }
        out += "\n";
    } else {
        let titles: Vec<String> = matrix.columns.iter().map(|c| format!(">{c}")).collect();
        let titles: Vec<&str> = std::iter::once("").chain(titles.iter().map(String::as_str)).collect();
        let mut rows = Rows::new(&titles);
        for (name, line) in matrix.rows.iter().zip(cells.chunks(matrix.columns.len().max(1))) {
            let shown = line.iter().map(|v| if v.is_nan() { "-".into() } else { format!("{v:.4}") });
            rows.push(std::iter::once(name.clone()).chain(shown).collect(), Value::Null);
        }
        out += &rows.table();
    }
    out += &format!("{}, {} rows, {} data points", measure.name(), count(found.n_rows), count(found.n_points));
    out += &format!(", {}", found.maps.describe());
    let mut sources: Vec<String> = found.sides.iter().map(|s| s.source.to_string()).collect();
    sources.sort();
    sources.dedup();
    out += &format!("; source: {}\n", sources.join(", "));
    let unshared: Vec<String> = found
        .sides
        .iter()
        .zip(&matrix.keys)
        .filter(|(s, _)| s.unshared > 0)
        .map(|(s, k)| format!("{k}: {} rows that another side lacks are left out\n", count(s.unshared)))
        .collect();
    out += &unshared.concat();
    for (side, key) in found.sides.iter().zip(&matrix.keys).filter(|(s, _)| !s.left_out.is_empty()) {
        out += &format!("{key}: text left out: {}\n", side.left_out.join(", "));
    }
    let widest = found.sides.iter().map(|s| s.n_columns as u64).max().unwrap_or(0);
    // Of norms of covariances, which CKA is made of, that is not so.
    if found.n_points <= widest && !matches!(measure, Measure::LinearCka | Measure::RbfCka { .. }) {
        out += "fewer data points than columns: values are near 1 whatever the sides hold\n";
    }
    // A side that has no answer says so once, and not with each other one.
    let refused: BTreeSet<String> =
        found.values.iter().filter_map(|v| v.as_ref().err()).map(|e| e.to_string()).collect();
    out += &refused.iter().map(|why| format!("-: {why}\n")).collect::<String>();
    out
}

/// The keys of a single pair.
fn both(matrix: &Matrix) -> Vec<String> {
    match matrix.cells[..] {
        [Some((a, b))] => [a, b].iter().filter_map(|i| matrix.keys.get(*i)).map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}
