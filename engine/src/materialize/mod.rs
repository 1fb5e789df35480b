//! Materialization (5.4.3, 5.5.2): which values of models that can be run again are kept, by γ, and how those that a
//! RERUN produced get into the store beside the answers.

mod background;
mod decide;
mod gamma;
mod gather;
mod mode;
mod sizes;

pub use background::{Balance, MaterializeReport, Materializer, Offer};
pub use decide::{Candidate, within_budget, worth_storing};
pub use gamma::{ColumnDemand, Demand, gamma};
pub use mode::{Materialize, parse_bytes};
pub use sizes::GroupSize;
