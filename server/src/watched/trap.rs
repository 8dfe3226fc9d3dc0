//! Ends a thread or a task on purpose, for tests of what comes of that. In a release build there is nothing
//! here that could.

#[cfg(test)]
pub(super) use self::armed::Trap;
#[cfg(not(test))]
pub(super) use self::none::Trap;

#[cfg(not(test))]
mod none {
    use std::future::Future;
    use std::ops::ControlFlow;

    use crate::watched::Kind;

    #[derive(Debug, Default)]
    pub(in crate::watched) struct Trap(());

    impl Trap {
        pub(in crate::watched) fn is_sprung(&self, _: Kind) -> ControlFlow<()> {
            ControlFlow::Continue(())
        }

        pub(in crate::watched) fn over<T, F: Future<Output = T>>(&self, _: Kind, task: F) -> F {
            task
        }
    }
}

#[cfg(test)]
mod armed {
    use std::future::{Future, poll_fn};
    use std::ops::ControlFlow;
    use std::pin::pin;
    use std::task::Poll;

    use tokio::sync::watch;

    use crate::watched::{How, Kind};

    #[derive(Debug)]
    pub(in crate::watched) struct Trap(watch::Sender<Option<(Kind, How)>>);

    impl Default for Trap {
        fn default() -> Self {
            Self(watch::Sender::new(None))
        }
    }

    impl Trap {
        pub(in crate::watched) fn spring(&self, kind: Kind, how: How) {
            self.0.send_replace(Some((kind, how)));
        }

        pub(in crate::watched) fn disarm(&self) {
            self.0.send_replace(None);
        }

        /// Looks, and panics or has the caller return where it is sprung.
        pub(in crate::watched) fn is_sprung(&self, kind: Kind) -> ControlFlow<()> {
            let sprung = *self.0.borrow();
            match sprung {
                Some((of, how)) if of == kind => go_off(kind, how),
                _ => ControlFlow::Continue(()),
            }
        }

        /// The task, until it is sprung.
        pub(in crate::watched) async fn over<T: Default>(
            &self,
            kind: Kind,
            task: impl Future<Output = T>,
        ) -> T {
            let mut sprung = self.0.subscribe();
            let is_it = |sprung: &Option<(Kind, How)>| sprung.is_some_and(|(of, _)| of == kind);
            let mut sprung = pin!(sprung.wait_for(is_it));
            let mut task = pin!(task);
            // In the poll, so that a panic meets the task as one of its own would.
            poll_fn(|context| {
                if sprung.as_mut().poll(context).is_ready() && self.is_sprung(kind).is_break() {
                    return Poll::Ready(T::default());
                }
                task.as_mut().poll(context)
            })
            .await
        }
    }

    fn go_off(kind: Kind, how: How) -> ControlFlow<()> {
        match how {
            How::Panicked => panic!("{} was to panic", kind.name()),
            How::Returned => ControlFlow::Break(()),
        }
    }
}
