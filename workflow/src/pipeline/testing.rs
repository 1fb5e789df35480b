//! Helpers of the operators' tests.

use std::sync::Arc;

use arrow::array::ArrayRef;

use super::check::Plan;
use super::columns::Columns;
use super::data::Data;
use super::described::Pipeline;
use super::document::Template;
use super::error::PipelineError;
use super::node::{Kind, Node};
use super::operator::{Given, Input, Inputs, Learnt, Outcome};
use super::operators;
use super::params::Params;
use super::table::Table;

/// A table of rows 0, 1, 2, … of these columns.
pub(crate) fn table(columns: Vec<(&str, ArrayRef)>) -> Table {
    let n = columns.first().map_or(0, |(_, c)| c.len()) as u64;
    let columns = columns.into_iter().map(|(n, c)| (n.to_string(), c)).collect();
    Table::of(Arc::new((0..n).collect()), columns).unwrap()
}

/// No files.
pub(crate) fn no_data() -> Data {
    Data::open(env!("CARGO_MANIFEST_DIR")).unwrap()
}

/// Parses, checks, teaches and runs an operator whose inputs are tables; what it learnt and what it gave.
pub(crate) fn run_with(
    op: &str,
    yaml: &str,
    values: Vec<Input>,
    learnt: Option<Learnt>,
) -> Result<(Option<Learnt>, Outcome), Box<dyn std::error::Error>> {
    let node = Node::parse(yaml)?;
    let Kind::Map(keys) = node.kind else { return Err("parameters are a map".into()) };
    let kind = operators::find(op).ok_or("no such operator")?;
    let mut params = Params::new(&"test".into(), "stage", op, node.place, keys);
    let parsed = (kind.parse)(&mut params);
    let (operator, ..) = params.finish(parsed)?;
    let given: Vec<Given> = values
        .iter()
        .map(|v| match v {
            Input::Table(t) => Given::Table(Columns::of(&t.schema())),
            Input::Learnt(l) => {
                let about = [("task", "regression".to_owned())].into();
                Given::Learnt { operator: l.operator, needs: Columns::default(), about }
            }
        })
        .collect();
    let data = no_data();
    let checked = operator.check(&given, &data)?;
    let mut inputs = Inputs { values, learnt, data: &data };
    if inputs.learnt.is_none() && checked.needs.is_some() {
        inputs.learnt = operator.learn(&inputs)?.map(|b| Learnt { operator: kind.name, bytes: b.into() });
    }
    let outcome = operator.run(&inputs)?;
    assert_eq!(outcome.tables.len(), checked.tables.len());
    for (table, (_, columns)) in outcome.tables.iter().zip(&checked.tables) {
        for (name, t) in columns.known() {
            assert_eq!(table.column("", name)?.data_type(), t, "{name}: the check announced another type");
        }
        if columns.is_closed() {
            assert_eq!(*columns, Columns::of(&table.schema()), "the check announced other columns");
        }
    }
    Ok((inputs.learnt, outcome))
}

/// As [`run_with`], for tables alone.
pub(crate) fn run_operator(op: &str, yaml: &str, tables: &[Table]) -> Result<Outcome, Box<dyn std::error::Error>> {
    Ok(run_with(op, yaml, tables.iter().cloned().map(Input::Table).collect(), None)?.1)
}

/// The plans of all settings of a template over `data`.
pub(crate) fn plans(yaml: &str, data: &Data) -> Result<Vec<Plan>, PipelineError> {
    let template = Template::parse("test.yaml", yaml)?;
    let plan = |s| Plan::new(Pipeline::new(&template, s)?, data, &|_| None);
    template.settings().iter().map(plan).collect()
}
