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
    on_threads(tasks.len(), work);
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Runs `task` for each of `tasks`, begun in order, on as many threads as the pool has.
///
/// rayon's own iterators leave the thread that asks asleep and wake two others by turns; where both wake on one core, the
/// kernel parts them only after milliseconds (seen on two cores: products of 5 ms took 10).
pub fn each<T: Send>(tasks: Vec<T>, task: impl Fn(T) + Sync) {
    let n = tasks.len();
    let tasks = Mutex::new(tasks.into_iter());
    let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some(one) = next() {
            task(one);
        }
    };
    on_threads(n, work);
}

/// Runs `work` on the thread that asks and on the pool's others, for at most `n` threads.
fn on_threads(n: usize, work: impl Fn() + Sync) {
    rayon::in_place_scope(|scope| {
        (1..rayon::current_num_threads().min(n)).for_each(|_| scope.spawn(|_| work()));
        work();
    });
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
        let sum = AtomicUsize::new(0);
        each((0..1000usize).collect(), |i| {
            sum.fetch_add(i, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 499_500);
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
