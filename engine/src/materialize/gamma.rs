//! The storage cost model (5.5.2): γ, the query time that a byte saves.
//!
//! ```text
//! (5.5)  γ = (t_rerun − t_read) · n_query / S(i)        seconds per GB
//! ```
//!
//! with t_rerun and t_read for all rows. Of an intermediate i it is taken as it stands. Of one column group g, γ is the
//! sum over the sets of columns C that queries asked for together and that hold g of (t_rerun − t_read(C)) · n_query(C) /
//! S(C): a query is answered by READ only when all of its columns are there, so that what it saves is shared by their
//! bytes. Where all queries ask for the same columns, each of their groups has the γ of Eq. 5.5.

/// Bytes of a GB.
const GB: f64 = 1e9;

/// γ in seconds per GB (Eq. 5.5): 0 where READ saves nothing, infinite where it saves time and takes no bytes.
pub fn gamma(t_rerun: f64, t_read: f64, n_query: f64, bytes: f64) -> f64 {
    let saved = (t_rerun - t_read).max(0.0) * n_query;
    if saved > 0.0 { saved / (bytes / GB) } else { 0.0 }
}

/// Queries that asked for the same columns of an intermediate.
#[derive(Debug, Clone, PartialEq)]
pub struct ColumnDemand {
    /// Whether each group holds some of the columns.
    pub groups: Vec<bool>,
    /// Queries.
    pub n_query: u64,
    /// Seconds to rerun the intermediate for all rows.
    pub t_rerun: f64,
    /// Seconds to read the columns of all rows.
    pub t_read: f64,
}

/// All queries of an intermediate.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Demand {
    /// By the columns that they asked for.
    pub columns: Vec<ColumnDemand>,
}

impl Demand {
    /// γ of each group, by the bytes that each takes.
    pub fn gammas(&self, bytes: &[f64]) -> Vec<f64> {
        let mut gammas = vec![0.0; bytes.len()];
        for demand in &self.columns {
            let total: f64 = bytes.iter().zip(&demand.groups).filter(|(_, is_in)| **is_in).map(|(b, _)| b).sum();
            let share = gamma(demand.t_rerun, demand.t_read, demand.n_query as f64, total);
            gammas.iter_mut().zip(&demand.groups).filter(|(_, is_in)| **is_in).for_each(|(g, _)| *g += share);
        }
        gammas
    }

    /// γ of the intermediate (Eq. 5.5), by the bytes of all of its groups.
    pub fn gamma(&self, bytes: f64) -> f64 {
        self.columns.iter().map(|d| gamma(d.t_rerun, d.t_read, d.n_query as f64, bytes)).fold(0.0, |a, b| a + b)
    }

    /// n_query.
    pub fn n_query(&self) -> u64 {
        self.columns.iter().map(|d| d.n_query).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gamma_by_hand() {
        // 12 s rerun, 2 s read, five queries, 2 GB: 10 · 5 / 2 = 25 s/GB.
        assert_eq!(gamma(12.0, 2.0, 5.0, 2e9), 25.0);
        // The source's example: 0.5 s per KB.
        assert!((gamma(0.6, 0.1, 1.0, 1e3) - 0.5e6).abs() < 1e-6);
        // What reads slower than it reruns is not worth a byte, nor is what nobody asked for.
        assert_eq!(gamma(1.0, 2.0, 100.0, 1.0), 0.0);
        assert_eq!(gamma(2.0, 1.0, 0.0, 1.0), 0.0);
        assert_eq!(gamma(2.0, 1.0, 0.0, 0.0), 0.0);
        assert_eq!(gamma(2.0, 1.0, 1.0, 0.0), f64::INFINITY);
    }

    #[test]
    fn groups_share_what_their_queries_save() {
        let demand = |groups: &[u8], n_query, t_read| ColumnDemand {
            groups: groups.iter().map(|g| *g == 1).collect(),
            n_query,
            t_rerun: 5.0,
            t_read,
        };
        let bytes = [1e9, 1e9, 2e9];
        // Three queries of group 0 save 3 · 4 s in 1 GB; one of everything saves 3 s in 4 GB.
        let all = Demand { columns: vec![demand(&[1, 0, 0], 3, 1.0), demand(&[1, 1, 1], 1, 2.0)] };
        assert_eq!(all.gammas(&bytes), [12.75, 0.75, 0.75]);
        assert_eq!((all.gamma(4e9), all.n_query()), ((12.0 + 3.0) / 4.0, 4));
        // One query of everything: every group has the γ of Eq. 5.5.
        let one = Demand { columns: vec![demand(&[1, 1, 1], 1, 2.0)] };
        assert_eq!(one.gammas(&bytes), [one.gamma(4e9); 3]);
        assert_eq!(Demand::default().gammas(&bytes), [0.0; 3]);
    }
}
