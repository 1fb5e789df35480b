//! Tasks beside each other, on the thread that asks too: it begins at once, while others are woken, and where they wake
//! late it has done their part.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Runs `task` for each of `tasks`, in no order, on as many threads as the pool has; each thread makes one `state` and
/// gives it to all its tasks.
///
/// Errors: the first that a task returned; what had not begun then is left out.
pub(crate) fn try_each<T: Sync, S, E: Send>(
    tasks: &[T],
    state: impl Fn() -> S + Sync,
    task: impl Fn(&mut S, &T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        let mut state = state();
        while let Some(one) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(e) = task(&mut state, one) {
                next.store(tasks.len(), Ordering::Relaxed);
                failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            }
        }
    };
    rayon::in_place_scope(|scope| {
        (1..rayon::current_num_threads().min(tasks.len())).for_each(|_| scope.spawn(|_| work()));
        work();
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_and_the_first_error_ends_it() {
        for n in [0usize, 1, 2, 3, 100] {
            let seen: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            let tasks: Vec<usize> = (0..n).collect();
            let made = AtomicUsize::new(0);
            let count = |_: &mut (), i: &usize| -> Result<(), ()> {
                seen[*i].fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            let state = || {
                made.fetch_add(1, Ordering::Relaxed);
            };
            assert_eq!(try_each(&tasks, state, count), Ok(()));
            assert!(seen.iter().all(|s| s.load(Ordering::Relaxed) == 1));
            assert!(made.load(Ordering::Relaxed) <= rayon::current_num_threads().max(1));
        }
        let ran = AtomicUsize::new(0);
        let tasks: Vec<usize> = (0..100_000).collect();
        let fail = |_: &mut (), i: &usize| {
            ran.fetch_add(1, Ordering::Relaxed);
            if *i == 7 { Err(*i) } else { Ok(()) }
        };
        assert_eq!(try_each(&tasks, || (), fail), Err(7));
        assert!(ran.load(Ordering::Relaxed) < tasks.len());
    }
}
