//! The operators, one file each. A new one is a file and a line in [`OPERATORS`].

mod avg;
mod category;
mod combine_predictions;
mod compute_neighborhood;
mod convert;
mod drop_columns;
mod evaluate;
mod expression;
mod fill_na;
mod filter;
mod get_construction_recency;
mod is_residential;
mod join;
mod label_indexing;
mod one_hot_encoding;
mod predict;
mod read;
mod read_csv;
mod read_parquet;
mod scaling;
mod select_column;
mod train;
mod train_elastic_net;
mod train_lightgbm;
mod train_logistic_regression;
mod train_test_split;
mod train_xgboost;

#[cfg(test)]
mod tests;

use super::operator::OperatorKind;

/// All operators.
pub(crate) const OPERATORS: &[&OperatorKind] = &[
    &avg::KIND,
    &combine_predictions::KIND,
    &compute_neighborhood::KIND,
    &drop_columns::KIND,
    &evaluate::KIND,
    &expression::KIND,
    &fill_na::KIND,
    &filter::KIND,
    &get_construction_recency::KIND,
    &is_residential::KIND,
    &join::KIND,
    &label_indexing::KIND,
    &one_hot_encoding::KIND,
    &predict::KIND,
    &read_csv::KIND,
    &read_parquet::KIND,
    &scaling::KIND,
    &select_column::KIND,
    &train_elastic_net::KIND,
    &train_lightgbm::KIND,
    &train_logistic_regression::KIND,
    &train_test_split::KIND,
    &train_xgboost::KIND,
];

/// The operator called `name`.
pub(crate) fn find(name: &str) -> Option<&'static OperatorKind> {
    OPERATORS.iter().find(|k| k.name == name).copied()
}
