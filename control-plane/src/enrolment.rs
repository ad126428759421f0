//! How a machine becomes a proxy: enrolments, each with a token that is good once, and the certificates that follow.
//!
//! - Somebody who may makes an enrolment for a fleet, and gives its token to a machine.
//! - The machine makes a key, and asks for a certificate with the token ([`Enrolments::enrol`]).
//! - Long before that ends it makes another key, and asks with the certificate for the next ([`Enrolments::renew`]; [`renewal`] is the
//!   gRPC side). The API is not needed for that, only the xDS port, which the proxy has to reach anyway.
//! - The two last are what [`agent`] does, on the machine.
//!
//! A certificate cannot be taken back, so it is short, and what is taken back is the enrolment: from then on nothing is renewed. The
//! database knows the keys of each proxy, so an older certificate of the same name, or one that was issued by hand, renews nothing.
//!
//! The store decides who is first; here it is decided what is said, and in which order: a certificate is made before the store is asked,
//! and handed out only if the store has agreed.

pub mod agent;
pub mod renewal;

use std::{sync::Arc, time::Duration};

use rand::CryptoRng;
use serde_json::json;
use time::OffsetDateTime;

use crate::{
    audit::{self, By},
    identity::{
        authority::{Authority, AuthorityError, Certified, renew_after},
        request::RequestedKey,
        spiffe::ProxyIdentity,
        token::{self, TokenHash},
    },
    metrics::CERTIFICATES,
    model::Name,
    store::{Action, EnrolmentRecord, EnrolmentUse, NewEntry, Store, StoreError, Used},
    tokens::Made,
};

/// The most enrolments there can be, ended ones that are still listed included.
pub const MOST_ENROLMENTS: u32 = 100_000;

/// What enrolments are called in the audit log.
pub const KIND: &str = "Enrolment";

/// An enrolment to be made.
#[derive(Clone, Debug)]
pub struct NewEnrolment {
    /// Which fleet the proxy will be of.
    pub fleet: Name,
    /// Which proxy it will be; none: it chooses a name that no other has.
    pub proxy: Option<Name>,
    /// How long each of its certificates is good.
    pub life: time::Duration,
    /// How long the token is good.
    pub ttl: time::Duration,
}

/// What a machine gets.
#[derive(Clone, Debug)]
pub struct Granted {
    /// The fleet.
    pub fleet: Name,
    /// The proxy's id.
    pub proxy: Name,
    /// The certificate.
    pub certified: Certified,
    /// When to come for the next.
    pub renew_after: OffsetDateTime,
}

/// Why a certificate is not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nobody has been given such a token.
    #[error("the enrolment token is not valid")]
    Unknown,
    /// It was good until now.
    #[error("the enrolment token has expired")]
    Expired,
    /// Somebody has ended it, or the proxy has enrolled anew.
    #[error("the enrolment is revoked")]
    Revoked,
    /// Somebody has used it.
    #[error("the enrolment token was used already, with another key")]
    Used,
    /// It is for another proxy.
    #[error("the enrolment is for proxy {0}")]
    OtherProxy(String),
    /// It is for any proxy, and the machine has not said which it is.
    #[error("the enrolment is for a proxy of any name, so the request has to say one")]
    NoName,
    /// There is a proxy of that name.
    #[error(
        "proxy {proxy} of fleet {fleet} has enrolled already; choose another name, or make an enrolment for it by name"
    )]
    Taken {
        /// The fleet.
        fleet: String,
        /// The proxy.
        proxy: String,
    },
    /// What is in the store is no name any more.
    #[error("there is no fleet {0:?}")]
    NoFleet(String),
    /// The certificate is not of an enrolment.
    #[error("proxy {0} has not enrolled, or its enrolment is revoked")]
    NotEnrolled(String),
    /// It was, but another key came after it.
    #[error("proxy {0} has another key by now; whoever holds this one has to enrol anew")]
    OtherKey(String),
}

/// Why nothing was done.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// It has nothing to issue certificates with.
    #[error(
        "this control plane has no CA to issue certificates with; whoever operates it has to set ca_cert and ca_key"
    )]
    NoAuthority,
    /// There are as many as there can be.
    #[error("there are {MOST_ENROLMENTS} enrolments already; revoke those that are not needed")]
    TooMany,
    /// There is no such enrolment, or it is revoked.
    #[error("there is no enrolment {0:?}")]
    NotFound(String),
    /// The machine is not what it claims.
    #[error(transparent)]
    Refused(Refused),
    /// The certificate cannot be made.
    #[error("cannot issue a certificate")]
    Authority(#[source] AuthorityError),
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Refused> for EnrolmentError {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

/// Makes enrolments and what follows from them.
pub struct Enrolments {
    store: Arc<dyn Store>,
    authority: Option<Authority>,
}

impl Enrolments {
    /// Keeps them in `store`, and issues with `authority`.
    pub fn new(store: Arc<dyn Store>, authority: Option<Authority>) -> Self {
        Self { store, authority }
    }

    fn authority(&self) -> Result<&Authority, EnrolmentError> {
        self.authority.as_ref().ok_or(EnrolmentError::NoAuthority)
    }

    /// Enrolments in the order of their ids, those after `after`, at most `limit`.
    ///
    /// # Errors
    /// The store did not answer.
    pub async fn list(&self, after: &str, limit: u32) -> Result<Vec<EnrolmentRecord>, StoreError> {
        self.store.enrolments(after, limit).await
    }

    /// Makes an enrolment.
    ///
    /// # Errors
    /// There is nothing to issue with, there are too many, or the store did not take it.
    pub async fn create(
        &self,
        new: NewEnrolment,
        by: By<'_>,
        now: OffsetDateTime,
        rng: &mut (impl CryptoRng + Send),
    ) -> Result<Made, EnrolmentError> {
        self.authority()?;
        let NewEnrolment { fleet, proxy, life, ttl } = new;
        let token = token::generate(token::ENROLMENT_PREFIX, rng);
        let made = Made { id: format!("{:016x}", rng.next_u64()), token, expires_at: now + ttl };
        let record = EnrolmentRecord {
            id: made.id.clone(),
            fleet: fleet.to_string(),
            proxy: proxy.map(|proxy| proxy.to_string()),
            hash: TokenHash::of(made.token.expose()).bytes().to_vec(),
            life,
            created_by: by.name.to_owned(),
            created_at: now,
            expires_at: made.expires_at,
            used: None,
            revoked_at: None,
        };
        let entry = by.done(Action::CreateEnrolment, now).about(KIND, &made.id);
        let entry = NewEntry { after: Some(written(&record)), ..entry };
        match self.store.add_enrolment(record, MOST_ENROLMENTS, entry).await? {
            true => Ok(made),
            false => Err(EnrolmentError::TooMany),
        }
    }

    /// Ends an enrolment: its token is worth nothing, and the certificates of who has used it are not renewed.
    ///
    /// # Errors
    /// There is none, or the store did not take it.
    pub async fn revoke(&self, id: &str, by: By<'_>, now: OffsetDateTime) -> Result<EnrolmentRecord, EnrolmentError> {
        let unknown = || EnrolmentError::NotFound(id.to_owned());
        let record = self.store.enrolment(id).await?.ok_or_else(unknown)?;
        let entry = by.done(Action::RevokeEnrolment, now).about(KIND, id);
        let entry = NewEntry { before: Some(written(&record)), ..entry };
        match self.store.revoke_enrolment(id, now, entry).await? {
            true => Ok(EnrolmentRecord { revoked_at: Some(now), ..record }),
            false => Err(unknown()),
        }
    }

    /// The enrolment that a token is of, whatever has become of it.
    ///
    /// # Errors
    /// There is none, or the store did not answer.
    pub async fn of_token(&self, token: &str) -> Result<EnrolmentRecord, EnrolmentError> {
        let is_one = token.starts_with(token::ENROLMENT_PREFIX);
        let hash = TokenHash::of(token);
        let found = if is_one { self.store.enrolment_of_token(hash.bytes()).await? } else { None };
        Ok(found.ok_or(Refused::Unknown)?)
    }

    /// Makes whoever has the token of `enrolment`, and `key`, a proxy. `named` is how it wants to be called.
    ///
    /// # Errors
    /// It is refused, and why; or the store did not take it.
    pub async fn enrol(
        &self,
        enrolment: EnrolmentRecord,
        key: &RequestedKey,
        named: Option<Name>,
        from: String,
        now: OffsetDateTime,
    ) -> Result<Granted, EnrolmentError> {
        let authority = self.authority()?;
        let EnrolmentRecord { id, fleet, proxy, life, .. } = &enrolment;
        let fleet: Name = fleet.parse().map_err(|_| Refused::NoFleet(fleet.clone()))?;
        standing(&enrolment, key, now)?;
        let proxy = match (proxy, named) {
            (Some(own), Some(named)) if named.as_str() != own => return Err(Refused::OtherProxy(own.clone()).into()),
            (Some(own), _) => own.parse().map_err(|_| Refused::OtherProxy(own.clone()))?,
            (None, Some(named)) => named,
            (None, None) => return Err(Refused::NoName.into()),
        };
        let granted = grant(authority, key, (fleet, proxy), *life, now)?;
        let used = EnrolmentUse {
            proxy: granted.proxy.to_string(),
            from: from.clone(),
            at: now,
            key: key.hash().to_vec(),
            previous_key: None,
            valid_until: granted.certified.not_after,
        };
        let actor = actor(id);
        let entry = NewEntry::done(Action::Enrol, &actor, &from, now).about(KIND, id);
        let after = json!({ "identity": granted.certified.uri, "certificateUntil": audit::moment(used.valid_until) });
        let entry = NewEntry { after: Some(after.to_string()), ..entry };
        match self.store.use_enrolment(id, used, entry).await? {
            Used::Done => {}
            Used::Ended => return Err(self.ended(&enrolment, key, now).await),
            Used::Taken => {
                let (fleet, proxy) = (granted.fleet.to_string(), granted.proxy.to_string());
                return Err(Refused::Taken { fleet, proxy }.into());
            }
        }
        metrics::counter!(CERTIFICATES, "reason" => "enrolment").increment(1);
        tracing::info!(
            enrolment = id,
            fleet = granted.fleet.as_str(),
            proxy = granted.proxy.as_str(),
            "a proxy has enrolled"
        );
        Ok(granted)
    }

    /// Why the store has not taken what looked good a moment ago.
    async fn ended(&self, before: &EnrolmentRecord, key: &RequestedKey, now: OffsetDateTime) -> EnrolmentError {
        match self.store.enrolment(&before.id).await {
            Ok(Some(record)) => standing(&record, key, now).err().unwrap_or(Refused::Used).into(),
            Ok(None) => Refused::Unknown.into(),
            Err(error) => error.into(),
        }
    }

    /// The next certificate for `proxy`, which has shown to hold the key of the hash `held`.
    ///
    /// # Errors
    /// It is refused, and why; or the store did not take it.
    pub async fn renew(
        &self,
        proxy: ProxyIdentity,
        held: &[u8; 32],
        key: &RequestedKey,
        now: OffsetDateTime,
    ) -> Result<Granted, EnrolmentError> {
        let authority = self.authority()?;
        let ProxyIdentity { fleet, id, .. } = proxy;
        let name = format!("{fleet}/{id}");
        let enrolment = self.store.enrolment_of_proxy(fleet.as_str(), id.as_str()).await?;
        let enrolment = enrolment.ok_or_else(|| Refused::NotEnrolled(name.clone()))?;
        let granted = grant(authority, key, (fleet, id), enrolment.life, now)?;
        let until = granted.certified.not_after;
        if !self.store.renew_enrolment(&enrolment.id, held, key.hash(), until).await? {
            return Err(Refused::OtherKey(name).into());
        }
        metrics::counter!(CERTIFICATES, "reason" => "renewal").increment(1);
        Ok(granted)
    }
}

/// Who uses an enrolment, as the audit log calls them.
pub fn actor(id: &str) -> String {
    format!("enrolment:{id}")
}

/// Whether the token of an enrolment is good for `key`. The store has the last word.
fn standing(record: &EnrolmentRecord, key: &RequestedKey, now: OffsetDateTime) -> Result<(), Refused> {
    match &record.used {
        _ if record.revoked_at.is_some() => Err(Refused::Revoked),
        Some(used) if used.key != key.hash() => Err(Refused::Used),
        _ if now >= record.expires_at => Err(Refused::Expired),
        _ => Ok(()),
    }
}

fn grant(
    authority: &Authority,
    key: &RequestedKey,
    (fleet, proxy): (Name, Name),
    life: time::Duration,
    now: OffsetDateTime,
) -> Result<Granted, EnrolmentError> {
    let certified = authority.certify_proxy(key, &fleet, &proxy, Duration::try_from(life).unwrap_or_default(), now);
    let certified = certified.map_err(EnrolmentError::Authority)?;
    let renew_after = renew_after(now, certified.not_after);
    Ok(Granted { fleet, proxy, certified, renew_after })
}

/// What the audit log is told of an enrolment.
fn written(record: &EnrolmentRecord) -> String {
    let EnrolmentRecord { id, fleet, proxy, life, expires_at, used, .. } = record;
    let life = humantime_serde::re::humantime::format_duration(life.unsigned_abs()).to_string();
    let used_by = used.as_ref().map(|used| &used.proxy);
    let written = json!({ "id": id, "fleet": fleet, "proxy": proxy, "certificateLife": life,
        "expiresAt": audit::moment(*expires_at), "usedBy": used_by });
    written.to_string()
}

#[cfg(test)]
mod tests;
