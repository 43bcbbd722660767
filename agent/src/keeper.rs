//! The keeper of states: what each plugin handed over last, on disk, and what that is worth to its next start.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use fleetswap_update::{Release, SavedState, Until};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use crate::durable::{About, DurableError, States};

/// Keeps the states of all plugins of this host. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Keeper {
    states: States,
    /// Count of the agent's runs; this one's number.
    run: u64,
    /// Orders states by the moment in which they were taken.
    clock: Arc<AtomicU64>,
    plugins: Arc<Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Kept>>>>>,
    seen: Arc<Mutex<BTreeMap<String, Seen>>>,
}

/// What can be asked and told without waiting for the disk.
#[derive(Default)]
struct Seen {
    view: Option<View>,
    /// Nothing was active since the state on disk was saved.
    untouched: bool,
    /// Something was active in this run.
    ran: bool,
}

/// What is known of one plugin's file.
#[derive(Default)]
struct Kept {
    /// Whether the file was looked at in this run.
    known: bool,
    sequence: u64,
    /// When what is there, or was read, was taken.
    taken: u64,
    /// What was saved last, and the hash of its bytes.
    last: Option<(About, [u8; 32])>,
    /// Why there is no file any more, in words.
    aside: String,
}

/// A state that a release handed over.
pub(crate) struct Handed {
    plugin: String,
    release: String,
    saved_by: String,
    version: u32,
    state: Bytes,
    taken: u64,
    unix_ms: u64,
}

/// What comes after a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The release goes on: a checkpoint.
    More,
    /// The next instance, in this run.
    Instance,
    /// The end of the agent.
    End,
}

/// What is there for a start.
pub(crate) enum Found {
    /// No state; why there is none any more, in words, or empty.
    Nothing(String),
    /// This one.
    State(SavedState, Bytes),
}

/// A plugin's file, as `agent status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// When it was saved, in milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// Its state version.
    pub(crate) version: u32,
    /// Its size, in bytes.
    pub(crate) bytes: usize,
}

impl Keeper {
    /// `run` must be greater than that of every run before, durably.
    pub(crate) fn new(states: States, run: u64) -> Self {
        Self { states, run, clock: Arc::default(), plugins: Arc::default(), seen: Arc::default() }
    }

    /// A state as it was taken just now.
    pub(crate) fn handed(&self, release: &Release, version: u32, state: Bytes) -> Handed {
        Handed {
            plugin: release.plugin.clone(),
            release: release.id.to_string(),
            saved_by: release.version.to_string(),
            version,
            state,
            taken: self.now(),
            unix_ms: unix_ms(),
        }
    }

    /// Keeps a state durably, unless one that was taken later is kept already. A checkpoint that changes nothing is
    /// not written.
    ///
    /// # Errors
    /// The disk failed; what was kept before is still there.
    pub(crate) async fn keep(&self, handed: Handed, after: After) -> Result<(), DurableError> {
        let kept = self.kept(&handed.plugin);
        let mut kept = kept.lock().await;
        if handed.taken < kept.taken {
            return Ok(());
        }
        let Handed { plugin, release, saved_by, version, state, taken, unix_ms } = handed;
        self.learn(&plugin, &mut kept).await?;
        let hash: [u8; 32] = Sha256::digest(&state).into();
        let view = View { unix_ms, version, bytes: state.len() };
        let same = |(about, before): &&mut (About, [u8; 32])| about.version == version && *before == hash;
        if let Some((about, _)) = kept.last.as_mut().filter(same).filter(|_| after != After::End) {
            about.unix_ms = unix_ms;
            kept.taken = taken;
            self.see(&plugin, |seen| (seen.view, seen.untouched) = (Some(view), after == After::Instance));
            return Ok(());
        }
        let ends_run = (after == After::End).then_some(self.run);
        let sequence = kept.sequence + 1;
        let about = About { release, saved_by, version, unix_ms, sequence, ends_run };
        self.write(&plugin, &about, &state).await?;
        (kept.sequence, kept.taken) = (sequence, taken);
        kept.last = Some((about, hash));
        kept.aside.clear();
        self.see(&plugin, |seen| (seen.view, seen.untouched) = (Some(view), after != After::More));
        Ok(())
    }

    /// What a start of the plugin finds. What was taken before this moment is not kept any more afterwards.
    ///
    /// # Errors
    /// The disk failed, or the file has a newer format. A damaged one is set aside, and told as gone.
    pub(crate) async fn find(&self, plugin: &str) -> Result<Found, DurableError> {
        let kept = self.kept(plugin);
        let mut kept = kept.lock().await;
        let found = match self.read(plugin).await {
            Err(error @ DurableError::Damaged { .. }) => {
                self.put_aside(plugin, &mut kept, format!("its state: {error}")).await?;
                None
            }
            found => found?,
        };
        kept.taken = self.now();
        let Some((about, state)) = found else { return Ok(Found::Nothing(kept.aside.clone())) };
        let about = self.take_note(plugin, &mut kept, about, &state);
        let (whole, ran) = self.see(plugin, |seen| (seen.untouched, seen.ran));
        let saved = SavedState {
            saved_by: about.saved_by,
            version: about.version,
            whole,
            age_ms: unix_ms().saturating_sub(about.unix_ms),
            until: if ran { Until::ItsEnd } else { Until::ThisStart },
        };
        Ok(Found::State(saved, state))
    }

    /// An instance of the plugin is about to answer callers: what is on disk is a checkpoint from here on.
    pub(crate) fn touch(&self, plugin: &str) {
        self.see(plugin, |seen| (seen.untouched, seen.ran) = (false, true));
    }

    /// The agent ends without another state: one that nothing ran after is still whole for the next run.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn pass_on(&self, plugin: &str) -> Result<(), DurableError> {
        let kept = self.kept(plugin);
        let mut kept = kept.lock().await;
        self.learn(plugin, &mut kept).await?;
        if !self.see(plugin, |seen| seen.untouched) {
            return Ok(());
        }
        let Some((about, state)) = self.read(plugin).await? else { return Ok(()) };
        let about = About { ends_run: Some(self.run), sequence: about.sequence + 1, ..about };
        self.write(plugin, &about, &state).await
    }

    /// Keeps the plugin's file where no start takes it from; why, in words.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn set_aside(&self, plugin: &str, why: String) -> Result<(), DurableError> {
        let kept = self.kept(plugin);
        let mut kept = kept.lock().await;
        self.put_aside(plugin, &mut kept, why).await
    }

    /// The plugin is gone: so are its files.
    ///
    /// # Errors
    /// The disk failed.
    pub(crate) async fn forget(&self, plugin: &str) -> Result<(), DurableError> {
        let kept = self.kept(plugin);
        let mut kept = kept.lock().await;
        let (states, name) = (self.states.clone(), plugin.to_owned());
        on_disk(move || states.forget(&name)).await?;
        // A state that is on its way is one of a plugin that is gone.
        *kept = Kept { known: true, taken: self.now(), sequence: kept.sequence, ..Kept::default() };
        self.see(plugin, |seen| *seen = Seen::default());
        Ok(())
    }

    /// What is kept of a plugin, as far as this run has seen it.
    pub(crate) fn view(&self, plugin: &str) -> Option<View> {
        locked(&self.seen).get(plugin).and_then(|seen| seen.view.clone())
    }

    async fn put_aside(&self, plugin: &str, kept: &mut Kept, why: String) -> Result<(), DurableError> {
        let (states, name) = (self.states.clone(), plugin.to_owned());
        on_disk(move || states.set_aside(&name)).await?;
        kept.aside = format!("{why} (kept aside as {})", self.states.aside(plugin).display());
        (kept.known, kept.last, kept.taken) = (true, None, self.now());
        self.see(plugin, |seen| (seen.view, seen.untouched) = (None, false));
        Ok(())
    }

    /// Reads the file once, so that what follows it has a greater sequence.
    async fn learn(&self, plugin: &str, kept: &mut Kept) -> Result<(), DurableError> {
        if kept.known {
            return Ok(());
        }
        match self.read(plugin).await {
            Ok(Some((about, state))) => {
                self.take_note(plugin, kept, about, &state);
            }
            // It is about to be replaced by a good one.
            Ok(None) | Err(DurableError::Damaged { .. }) => kept.known = true,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes in what the file holds. Returns it, with the time of the last checkpoint that found nothing changed.
    fn take_note(&self, plugin: &str, kept: &mut Kept, about: About, state: &Bytes) -> About {
        let confirmed = kept.last.take().filter(|(last, _)| last.sequence == about.sequence);
        let unix_ms = confirmed.map_or(about.unix_ms, |(last, _)| last.unix_ms.max(about.unix_ms));
        let about = About { unix_ms, ..about };
        // A file of the run just before this one, written as its last word.
        let whole = !kept.known && about.ends_run.is_some_and(|run| run + 1 == self.run);
        kept.known = true;
        kept.sequence = kept.sequence.max(about.sequence);
        kept.last = Some((about.clone(), Sha256::digest(state).into()));
        self.see(plugin, |seen| {
            seen.view = Some(View { unix_ms, version: about.version, bytes: state.len() });
            seen.untouched |= whole && !seen.ran;
        });
        about
    }

    async fn read(&self, plugin: &str) -> Result<Option<(About, Bytes)>, DurableError> {
        let (states, name) = (self.states.clone(), plugin.to_owned());
        on_disk(move || states.load(&name)).await
    }

    async fn write(&self, plugin: &str, about: &About, state: &Bytes) -> Result<(), DurableError> {
        let (states, name, about, state) =
            (self.states.clone(), plugin.to_owned(), about.clone(), state.clone());
        on_disk(move || states.save(&name, &about, &state)).await
    }

    fn see<T>(&self, plugin: &str, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(locked(&self.seen).entry(plugin.to_owned()).or_default())
    }

    fn kept(&self, plugin: &str) -> Arc<tokio::sync::Mutex<Kept>> {
        Arc::clone(locked(&self.plugins).entry(plugin.to_owned()).or_default())
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed) + 1
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("run", &self.run).finish_non_exhaustive()
    }
}

/// Away from the threads that serve callers.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DurableError> + Send + 'static,
) -> Result<T, DurableError> {
    spawn_blocking(work).await.unwrap_or_else(|cut| Err(DurableError::cut_short(cut)))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// One that has nothing, and keeps nothing.
#[cfg(test)]
pub(crate) fn testing() -> Keeper {
    Keeper::new(States::at("/nonexistent".into()), 1)
}

#[cfg(test)]
mod tests;
