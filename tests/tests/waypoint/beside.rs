//! Peers that a story plays itself, where it has to choose every step: tasks in a pod's namespace.

use std::{future::Future, thread};

use lab::{Place, Result};
use tokio::{runtime, select, sync::oneshot};

/// Runs a future in a place, to its end.
pub(crate) fn block_on<F>(place: &Place, make: impl FnOnce() -> F + Send) -> Result<F::Output>
where
    F: Future<Output: Send>,
{
    place.in_namespace(|| {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(make())
    })
}

/// Runs a future in a place for as long as a story takes, and drops it then.
pub(crate) fn beside<F: Future<Output = ()>, T>(
    place: &Place,
    make: impl FnOnce() -> F + Send,
    story: impl FnOnce() -> Result<T>,
) -> Result<T> {
    thread::scope(|scope| {
        let (end, ended) = oneshot::channel::<()>();
        let running = scope.spawn(|| {
            block_on(place, || async {
                select! {
                    () = make() => {}
                    _ = ended => {}
                }
            })
        });
        let told = story();
        // Dropped as well by a story that panics.
        drop(end);
        running.join().unwrap()?;
        told
    })
}
