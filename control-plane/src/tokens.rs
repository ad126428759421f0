//! The tokens that are in force, kept current by their serial.
//!
//! A replica holds all of them in memory, so that a request costs no question to the database. A change made here holds at once;
//! other replicas are woken by the store within milliseconds, and look for the serial every second besides, so that a lost
//! notification, or a store that sends none, costs a second. A token that is not known is looked for in the database before it
//! is refused, at a bounded rate: it may have been made a moment ago by another replica.
//!
//! While the database is away, what was known goes on for [`GOES_ON`]. After that nobody knows what was revoked, and no token is
//! taken but the admin's, which lies in a file.
//!
//! A token is found by its hash: whoever could learn something from how long that takes would have to choose hashes.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use chancery_runtime::{SecretString, telemetry::chain};
use parking_lot::Mutex;
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::{
    access::{Grant, Principal, Role, Scope},
    audit::{self, By},
    identity::token::{self, TokenHash},
    model::Name,
    store::{Action, NewEntry, Rotation, Store, StoreError, TokenRecord, TokenTable},
};

/// How often the store is asked for the serial, whatever was notified.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How often at most it is asked because of tokens that are not known.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How often it is written down which tokens were used.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);

/// How long tokens are taken on the word of a database that is away.
pub const GOES_ON: Duration = Duration::from_secs(10 * 60);

/// The most tokens there can be, ended ones that are still listed included.
const MOST_TOKENS: usize = 10_000;

/// What tokens are called in the audit log.
const KIND: &str = "Token";

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grants {
    /// The role.
    pub role: Role,
    /// The teams.
    pub teams: Vec<Name>,
    /// The scopes; none: all that the role has.
    pub scopes: Vec<Scope>,
}

/// A token to be made.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Whose it is.
    pub name: Name,
    /// What it allows.
    pub grants: Grants,
    /// How long a secret is good.
    pub ttl: time::Duration,
}

/// A token that was made, or has another secret.
#[derive(Clone, Debug)]
pub struct Made {
    /// Names it in the API.
    pub id: String,
    /// The secret; nobody can show it again.
    pub token: SecretString,
    /// Until when it is good.
    pub expires_at: OffsetDateTime,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody has been given it, or it has been revoked.
    #[error("the bearer token is not valid")]
    Unknown,
    /// It was good until now.
    #[error("the bearer token has expired")]
    Expired,
    /// The database has been away for too long to tell.
    #[error("the database has been away for so long that nobody knows which tokens were revoked")]
    Unsure,
}

/// Why a token is not changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Another one that is not revoked is called so.
    #[error("token {0} exists already")]
    Taken(Name),
    /// There are as many as there can be.
    #[error("there are {MOST_TOKENS} tokens already, with those that ended in the last {days} days", days = crate::store::TOKEN_KEPT_FOR.whole_days())]
    TooMany,
    /// There is no such token, or it is revoked.
    #[error("there is no token {0:?}")]
    Unknown(String),
    /// What it allows cannot be written down.
    #[error("cannot write down what the token allows")]
    Grants(#[source] serde_json::Error),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The tokens that are in force.
pub struct Tokens {
    store: Arc<dyn Store>,
    known: ArcSwap<Known>,
    /// When the store last said that `known` is current.
    confirmed: Mutex<Instant>,
    /// One at a time, and when it was done last.
    looking: tokio::sync::Mutex<Option<Instant>>,
    /// By id, when it was used last; written down now and then.
    used: Mutex<HashMap<String, OffsetDateTime>>,
}

struct Known {
    serial: u64,
    by_hash: HashMap<[u8; 32], Good>,
    /// Whose secrets of revoked tokens were.
    ended: HashMap<[u8; 32], String>,
}

/// A secret that is not revoked.
#[derive(Clone)]
struct Good {
    id: String,
    until: OffsetDateTime,
    principal: Arc<Principal>,
}

impl Tokens {
    /// Reads them from the store.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn load(store: Arc<dyn Store>) -> Result<Self, StoreError> {
        let asked = Instant::now();
        let known = ArcSwap::from_pointee(Known::of(&store.tokens().await?));
        let (confirmed, looking, used) = (Mutex::new(asked), tokio::sync::Mutex::default(), Mutex::default());
        Ok(Self { store, known, confirmed, looking, used })
    }

    /// Whose token `presented` is, and until when it is good.
    ///
    /// # Errors
    /// It is not taken, and why.
    pub async fn identify(
        &self,
        presented: &str,
        now: OffsetDateTime,
    ) -> Result<(Arc<Principal>, OffsetDateTime), Refused> {
        let hash = TokenHash::of(presented);
        if self.confirmed.lock().elapsed() > GOES_ON {
            return Err(Refused::Unsure);
        }
        if let Some(found) = self.find(&hash, now) {
            return found;
        }
        // What cannot be a token of ours is not worth a question.
        if presented.starts_with(token::PREFIX) {
            self.look_again().await;
        }
        self.find(&hash, now).unwrap_or(Err(Refused::Unknown))
    }

    /// Whether the token of this hash is one that is taken, as far as is known here.
    pub fn is_good(&self, hash: &TokenHash, now: OffsetDateTime) -> bool {
        let known = self.known.load();
        self.confirmed.lock().elapsed() <= GOES_ON
            && known.by_hash.get(hash.bytes()).is_some_and(|good| now < good.until)
    }

    /// Whose token `presented` was, of those that are not taken any more but known still.
    pub fn owner_of_ended(&self, presented: &str) -> Option<String> {
        let (hash, known) = (TokenHash::of(presented), self.known.load());
        let expired = known.by_hash.get(hash.bytes()).map(|good| good.principal.name.clone());
        expired.or_else(|| known.ended.get(hash.bytes()).cloned())
    }

    fn find(&self, hash: &TokenHash, now: OffsetDateTime) -> Option<Result<(Arc<Principal>, OffsetDateTime), Refused>> {
        let known = self.known.load();
        let good = known.by_hash.get(hash.bytes())?;
        if now >= good.until {
            return Some(Err(Refused::Expired));
        }
        self.used.lock().insert(good.id.clone(), now);
        Some(Ok((good.principal.clone(), good.until)))
    }

    /// All that there are, as they are written down.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn list(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.note_use().await?;
        Ok(self.store.tokens().await?.records)
    }

    /// Makes a token.
    ///
    /// # Errors
    /// Its name is taken, there are too many, or the store did not take it.
    pub async fn create(
        &self,
        new: NewToken,
        by: By<'_>,
        now: OffsetDateTime,
        rng: &mut (impl CryptoRng + Send),
    ) -> Result<Made, TokenError> {
        let NewToken { name, grants, ttl } = new;
        let token = token::generate(token::PREFIX, rng);
        let made = Made { id: format!("{:016x}", rng.next_u64()), token, expires_at: now + ttl };
        let after = json!({ "id": made.id, "grants": grants, "expiresAt": audit::moment(made.expires_at) });
        let entry = by.done(Action::CreateToken, now).about(KIND, name.as_str());
        let entry = NewEntry { after: Some(after.to_string()), ..entry };
        let grants = serde_json::to_string(&grants).map_err(TokenError::Grants)?;
        if self.store.tokens().await?.records.len() >= MOST_TOKENS {
            return Err(TokenError::TooMany);
        }
        let record = TokenRecord {
            id: made.id.clone(),
            name: name.to_string(),
            grants,
            hash: TokenHash::of(made.token.expose()).bytes().to_vec(),
            previous: None,
            created_by: by.name.to_owned(),
            created_at: now,
            ttl,
            expires_at: made.expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        if !self.store.add_token(record, entry).await? {
            return Err(TokenError::Taken(name));
        }
        self.take_in().await;
        Ok(made)
    }

    /// Gives a token another secret; the one before is good for `grace`, and not longer than it was.
    ///
    /// # Errors
    /// There is no such token, or the store did not take it.
    pub async fn rotate(
        &self,
        id: &str,
        grace: time::Duration,
        by: By<'_>,
        now: OffsetDateTime,
        rng: &mut (impl CryptoRng + Send),
    ) -> Result<Made, TokenError> {
        let unknown = || TokenError::Unknown(id.to_owned());
        let records = self.store.tokens().await?.records;
        let record = records.into_iter().find(|record| record.id == id).ok_or_else(unknown)?;
        let made = Made { id: id.to_owned(), token: token::generate(token::PREFIX, rng), expires_at: now + record.ttl };
        let hash = TokenHash::of(made.token.expose()).bytes().to_vec();
        let rotation = Rotation { hash, expires_at: made.expires_at, previous_until: now + grace };
        let before = json!({ "id": id, "expiresAt": audit::moment(record.expires_at) });
        let previous = (now + grace).min(record.expires_at);
        let after =
            json!({ "id": id, "expiresAt": audit::moment(made.expires_at), "previousUntil": audit::moment(previous) });
        let entry = by.done(Action::RotateToken, now).about(KIND, &record.name);
        let entry = NewEntry { before: Some(before.to_string()), after: Some(after.to_string()), ..entry };
        if !self.store.rotate_token(id, rotation, entry).await? {
            return Err(unknown());
        }
        self.take_in().await;
        Ok(made)
    }

    /// Ends a token: here when this returns, elsewhere within a second.
    ///
    /// # Errors
    /// There is no such token, or the store did not take it.
    pub async fn revoke(&self, id: &str, by: By<'_>, now: OffsetDateTime) -> Result<(), TokenError> {
        let unknown = || TokenError::Unknown(id.to_owned());
        let records = self.store.tokens().await?.records;
        let record = records.into_iter().find(|record| record.id == id).ok_or_else(unknown)?;
        let before = json!({ "id": id, "expiresAt": audit::moment(record.expires_at) });
        let entry = by.done(Action::RevokeToken, now).about(KIND, &record.name);
        let entry = NewEntry { before: Some(before.to_string()), ..entry };
        if !self.store.revoke_token(id, now, entry).await? {
            return Err(unknown());
        }
        {
            // Nobody who has read the table before may put the token back.
            let _looking = self.looking.lock().await;
            let known = self.known.load();
            let others = known.by_hash.iter().filter(|(_, good)| good.id != id);
            let by_hash = others.map(|(hash, good)| (*hash, good.clone())).collect();
            let ended = known.ended.clone();
            self.known.store(Arc::new(Known { serial: known.serial, by_hash, ended }));
        }
        self.take_in().await;
        Ok(())
    }

    /// Keeps them current until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut wakeups = self.store.token_wakeups();
        let (mut away, mut noted) = (false, Instant::now());
        loop {
            let stopped = tokio::select! {
                () = stop.cancelled() => true,
                woken = wakeups.changed() => woken.is_err(),
                () = tokio::time::sleep(POLL_INTERVAL) => false,
            };
            if stopped || noted.elapsed() > NOTE_INTERVAL {
                noted = Instant::now();
                // What cannot be written down is kept for the next time.
                let _ = self.note_use().await;
            }
            if stopped {
                return;
            }
            match self.catch_up().await {
                Ok(()) => away = false,
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        tracing::warn!(error = chain(&error), goes_on = ?GOES_ON, "cannot see which tokens are revoked");
                    }
                }
            }
        }
    }

    /// Takes in what was changed here. It is written down, so if that cannot be read now it is with the next look.
    async fn take_in(&self) {
        if let Err(error) = self.catch_up().await {
            tracing::warn!(error = chain(&error), "a token was changed, which this replica sees only later");
        }
    }

    /// Reads them anew if they have changed.
    async fn catch_up(&self) -> Result<(), StoreError> {
        let mut looked = self.looking.lock().await;
        let asked = Instant::now();
        // Before the answer: a database that gives none is not asked by each of those who wait.
        *looked = Some(asked);
        if self.store.token_serial().await? != self.known.load().serial {
            self.known.store(Arc::new(Known::of(&self.store.tokens().await?)));
        }
        *self.confirmed.lock() = asked;
        Ok(())
    }

    /// As [`Tokens::catch_up`], unless that was done a moment ago.
    async fn look_again(&self) {
        let recently = self.looking.lock().await.is_some_and(|looked| looked.elapsed() < LOOK_AGAIN);
        if !recently && let Err(error) = self.catch_up().await {
            tracing::debug!(error = chain(&error), "cannot look for a token that is not known");
        }
    }

    async fn note_use(&self) -> Result<(), StoreError> {
        let used = std::mem::take(&mut *self.used.lock());
        if used.is_empty() {
            return Ok(());
        }
        let noted = self.store.tokens_used(used.iter().map(|(id, at)| (id.clone(), *at)).collect()).await;
        if noted.is_err() {
            let mut again = self.used.lock();
            for (id, at) in used {
                again.entry(id).or_insert(at);
            }
        }
        noted
    }
}

impl Known {
    fn of(table: &TokenTable) -> Self {
        let (mut by_hash, mut ended) = (HashMap::new(), HashMap::new());
        for record in table.records.iter().filter(|record| record.revoked_at.is_some()) {
            let previous = record.previous.as_ref().map(|(hash, _)| hash);
            let hashes = [&record.hash].into_iter().chain(previous).filter_map(|hash| hash.as_slice().try_into().ok());
            ended.extend(hashes.map(|hash| (hash, record.name.clone())));
        }
        for record in table.records.iter().filter(|record| record.revoked_at.is_none()) {
            let grants: Grants = match serde_json::from_str(&record.grants) {
                Ok(grants) => grants,
                Err(error) => {
                    tracing::error!(token_id = record.id, error = chain(&error), "cannot read what a token allows");
                    continue;
                }
            };
            let Grants { role, teams, scopes } = grants;
            let (teams, scopes) = (teams.into_iter().collect(), scopes.into_iter().collect());
            let principal = Arc::new(Principal::new(record.name.clone(), [Grant { role, teams, scopes }]));
            let previous = record.previous.as_ref().map(|(hash, until)| (hash, *until));
            for (hash, until) in [(&record.hash, record.expires_at)].into_iter().chain(previous) {
                let good = Good { id: record.id.clone(), until, principal: principal.clone() };
                if let Ok(hash) = hash.as_slice().try_into() {
                    by_hash.insert(hash, good);
                }
            }
        }
        Self { serial: table.serial, by_hash, ended }
    }
}

#[cfg(test)]
mod tests;
