//! A connection's answer slots: answers leave in the order of the requests, written by the thread
//! that completes them.
//!
//! Every request opens a slot before it is worked on. Whoever completes a request **posts** its
//! answer into the slot and then **tries** to become the writer. If another thread is writing, it
//! goes on at once: a writer looks at the slots again after it has let go, so what was posted
//! while it wrote is seen by one of the two. Nobody ever waits for the writer, and a writer stops
//! after a bounded number of rounds and leaves the rest to the connection's task.
//!
//! Why no wake-up is lost: a poster fails to become the writer only while the writer holds `out`.
//! The writer lets go of `out` and only then takes `queue` to look again. If that look came before
//! the post, letting go came before the post too, and the poster could not have failed.
//!
//! This file depends on nothing but `super::sync`, so that a model checker can be put under it.

use std::collections::VecDeque;

use super::sync::Mutex;

/// Where answers go.
pub(crate) trait Sink<A> {
    /// Writes answers from the front, removing each that is written wholly and remembering in the
    /// front one how far it got.
    fn write(&self, answers: &mut VecDeque<A>) -> Wrote;
}

/// What a [`Sink`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// Everything was taken.
    All,
    /// The socket took no more, or one call wrote as much as it may: the task goes on with it.
    Blocked,
    /// The connection is gone.
    Broken,
}

/// How a [`Answers::pump`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// All that is ready has been written.
    Idle,
    /// Another thread writes, and will look again.
    Busy,
    /// Something is left for the connection's task.
    Left,
    /// The connection is gone.
    Broken,
}

/// Answers that one round takes from the slots. A writer holds the lock for at most
/// [`ROUNDS`] such rounds.
const ROUND_ANSWERS: usize = 64;
/// Rounds after which a writer leaves the rest to the connection's task.
const ROUNDS: usize = 8;

enum State<P, A> {
    Waiting(P),
    Ready(A),
}

struct Slot<P, A> {
    state: State<P, A>,
    weight: usize,
}

struct Queue<P, A> {
    /// The request that the front slot belongs to.
    first: u64,
    slots: VecDeque<Slot<P, A>>,
    /// Sum of the weights of the slots.
    weight: usize,
    /// The task stopped reading because the slots were full and wants to be told of room.
    reader_waits: bool,
    closed: bool,
}

impl<P, A> Queue<P, A> {
    fn slot(&mut self, request: u64) -> Option<&mut Slot<P, A>> {
        let at = request.checked_sub(self.first)?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }

    fn front_is_ready(&self) -> bool {
        matches!(
            self.slots.front(),
            Some(Slot {
                state: State::Ready(_),
                ..
            })
        )
    }
}

/// The slots of one connection. `P` is what is kept of a request that waits, `A` an answer.
pub(crate) struct Answers<P, A> {
    queue: Mutex<Queue<P, A>>,
    /// Taken from the slots and not yet in the socket; whoever holds this is the writer.
    out: Mutex<VecDeque<A>>,
    max_slots: usize,
    max_weight: usize,
}

impl<P, A> Answers<P, A> {
    /// Room for so many unanswered requests and so much of their weight (see
    /// [`Answers::has_room`]).
    pub(crate) fn new(max_slots: usize, max_weight: usize) -> Self {
        Self {
            queue: Mutex::new(Queue {
                first: 0,
                slots: VecDeque::new(),
                weight: 0,
                reader_waits: false,
                closed: false,
            }),
            out: Mutex::new(VecDeque::new()),
            max_slots,
            max_weight,
        }
    }

    /// Opens the next slot and returns its request number. Only the connection's task calls this.
    pub(crate) fn open(&self, pending: P, weight: usize) -> u64 {
        let mut queue = self.queue.lock();
        let request = queue.first + queue.slots.len() as u64;
        if !queue.closed {
            queue.slots.push_back(Slot {
                state: State::Waiting(pending),
                weight,
            });
            queue.weight += weight;
        }
        request
    }

    /// Whether another request may be read. If not, the [`Answers::pump`] that makes room says so.
    pub(crate) fn has_room(&self) -> bool {
        let mut queue = self.queue.lock();
        let room = queue.slots.len() < self.max_slots && queue.weight < self.max_weight;
        queue.reader_waits = !room;
        room
    }

    /// Lets `f` look at a waiting request; what it returns is the request's answer. True if the
    /// answer can be written now, so that the caller has to [`Answers::pump`].
    pub(crate) fn post(&self, request: u64, f: impl FnOnce(&mut P) -> Option<A>) -> bool {
        let mut queue = self.queue.lock();
        let is_front = request == queue.first;
        let Some(slot) = queue.slot(request) else {
            return false;
        };
        let State::Waiting(pending) = &mut slot.state else {
            return false;
        };
        let Some(answer) = f(pending) else {
            return false;
        };
        slot.state = State::Ready(answer);
        is_front
    }

    /// Shows every waiting request, oldest first.
    pub(crate) fn each_waiting(&self, mut f: impl FnMut(u64, &P)) {
        let queue = self.queue.lock();
        for (at, slot) in queue.slots.iter().enumerate() {
            if let State::Waiting(pending) = &slot.state {
                f(queue.first + at as u64, pending);
            }
        }
    }

    /// Tries to become the writer and writes what is ready. The flag says that the connection's
    /// task waits for room in the slots and that there is room now.
    pub(crate) fn pump(&self, sink: &impl Sink<A>) -> (Pumped, bool) {
        let mut room = false;
        for _ in 0..ROUNDS {
            let Some(mut out) = self.out.try_lock() else {
                return (Pumped::Busy, room);
            };
            if out.is_empty() {
                room |= self.take_ready(&mut out);
            }
            let wrote = if out.is_empty() {
                Wrote::All
            } else {
                sink.write(&mut out)
            };
            drop(out);
            match wrote {
                Wrote::All => {}
                Wrote::Blocked => return (Pumped::Left, room),
                Wrote::Broken => {
                    self.close();
                    return (Pumped::Broken, room);
                }
            }
            if !self.queue.lock().front_is_ready() {
                return (Pumped::Idle, room);
            }
        }
        (Pumped::Left, room)
    }

    fn take_ready(&self, out: &mut VecDeque<A>) -> bool {
        let mut queue = self.queue.lock();
        while out.len() < ROUND_ANSWERS && queue.front_is_ready() {
            if let Some(Slot {
                state: State::Ready(answer),
                weight,
            }) = queue.slots.pop_front()
            {
                out.push_back(answer);
                queue.first += 1;
                queue.weight -= weight;
            }
        }
        let room = queue.reader_waits
            && queue.slots.len() <= self.max_slots / 2
            && queue.weight <= self.max_weight / 2;
        if room {
            queue.reader_waits = false;
        }
        room
    }

    /// Whether nothing is waiting and nothing is left to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.lock().slots.is_empty() && self.out.try_lock().is_some_and(|out| out.is_empty())
    }

    /// Drops all slots; later posts find none.
    pub(crate) fn close(&self) {
        let dropped = {
            let mut queue = self.queue.lock();
            queue.closed = true;
            queue.first += queue.slots.len() as u64;
            queue.weight = 0;
            std::mem::take(&mut queue.slots)
        };
        // Dropped outside the lock: a waiting request may give back memory as it goes.
        drop(dropped);
    }
}

impl<P, A> std::fmt::Debug for Answers<P, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answers")
            .field("max_slots", &self.max_slots)
            .finish_non_exhaustive()
    }
}
