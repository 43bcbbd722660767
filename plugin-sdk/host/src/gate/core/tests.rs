//! Every order in which two callers and one swap can meet at a gate. All that they do is done under the gate's one
//! lock, so these orders are all that threads could make of it.
use super::*;

/// The swap: closes the gate, waits for the old value to be drained, puts the new one in place, opens.
const SWAP: [&str; 4] = ["pause", "drained", "replace", "resume"];
/// Callers beside it.
const CALLERS: usize = 2;

/// Where a caller stands.
enum Caller {
    Outside,
    /// With its ticket, and whether it was told to look again.
    Queued(u64, bool),
    Inside(Arc<Slot<&'static str>>),
    Gone,
}

/// One run. Who waits is asked again only when the gate's shell would tell it.
struct World {
    core: Core<&'static str, u32>,
    old: Arc<Slot<&'static str>>,
    callers: [Caller; CALLERS],
    /// Steps of the swap that are done.
    swapped: usize,
    told_drained: bool,
}

impl World {
    fn new() -> Self {
        let core = Core::new(Bounds { calls: CALLERS, bytes: 0 });
        core.replace("old");
        core.resume();
        let old = core.current().unwrap();
        Self { core, old, callers: [const { Caller::Outside }; CALLERS], swapped: 0, told_drained: false }
    }

    /// The callers and, as the last one, the swap: those that have something to do.
    fn ready(&self) -> Vec<usize> {
        let caller =
            |caller: &Caller| matches!(caller, Caller::Outside | Caller::Inside(_) | Caller::Queued(_, true));
        let mut ready: Vec<usize> = (0..CALLERS).filter(|index| caller(&self.callers[*index])).collect();
        let waits = SWAP.get(self.swapped) == Some(&"drained") && !self.told_drained;
        ready.extend(Some(CALLERS).filter(|_| self.swapped < SWAP.len() && !waits));
        ready
    }

    fn step(&mut self, actor: usize) {
        if actor == CALLERS { self.swap() } else { self.call(actor) }
    }

    fn swap(&mut self) {
        match SWAP[self.swapped] {
            "pause" => {
                self.core.pause();
                self.told_drained = true;
            }
            "drained" => {
                self.told_drained = false;
                if !self.core.is_drained(&self.old) {
                    return;
                }
                assert!(
                    !self.callers.iter().any(|caller| matches!(caller, Caller::Inside(_))),
                    "not drained"
                );
            }
            "replace" => drop(self.core.replace("new")),
            _ => self.core.resume(),
        }
        self.swapped += 1;
        if self.swapped > 2 {
            self.tell_callers();
        }
    }

    fn tell_callers(&mut self) {
        for caller in &mut self.callers {
            if let Caller::Queued(_, told) = caller {
                *told = true;
            }
        }
    }

    fn call(&mut self, index: usize) {
        let next = match std::mem::replace(&mut self.callers[index], Caller::Gone) {
            Caller::Outside => self.core.enter(0, 0),
            Caller::Queued(ticket, _) => self.core.retry(ticket),
            Caller::Inside(slot) => {
                self.told_drained |= self.core.leave(&slot);
                return;
            }
            Caller::Gone => return,
        };
        self.callers[index] = match next {
            Entry::Admitted(slot) => {
                assert!(self.swapped < 2 || slot.value == "new", "let in to what is drained");
                Caller::Inside(slot)
            }
            Entry::Queued(ticket) => Caller::Queued(ticket, false),
            Entry::Full | Entry::Shut => panic!("turned away"),
        };
    }

    fn check_end(&self, order: &[usize]) {
        assert_eq!(self.swapped, SWAP.len(), "the swap waits for ever: {order:?}");
        let gone = |caller: &Caller| matches!(caller, Caller::Gone);
        assert!(self.callers.iter().all(gone), "a caller waits for ever: {order:?}");
        assert_eq!((self.core.queue().calls, self.core.lock().in_flight.len()), (0, 0), "{order:?}");
    }
}

/// Plays every order that begins like this one; how many there were.
fn explore(order: &mut Vec<usize>) -> usize {
    let mut world = World::new();
    order.iter().for_each(|actor| world.step(*actor));
    let ready = world.ready();
    if ready.is_empty() {
        world.check_end(order);
        return 1;
    }
    let mut count = 0;
    for actor in ready {
        order.push(actor);
        count += explore(order);
        order.pop();
    }
    count
}

#[test]
fn in_every_order_a_swap_waits_for_its_callers_and_nobody_waits_for_ever() {
    let orders = explore(&mut Vec::new());
    assert!(orders > 300, "only {orders} orders");
}
