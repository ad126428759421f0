//! The token that goes with a request: one that was given, or that of a person who has signed in, renewed when it is about to end.

use std::sync::Arc;

use chancery_control_plane::oidc::IssuerUrl;
use chancery_runtime::SecretString;
use http::HeaderValue;
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::{
    issuer::{Answer, Issuer},
    kept::{Kept, Place},
};
use crate::failure::Failure;

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    /// Nobody in particular.
    None,
    /// Whoever has this token.
    Token(HeaderValue),
    /// A person who has signed in.
    Person(Arc<Session>),
}

/// A sign-in that is kept in a file.
#[derive(Debug)]
pub(crate) struct Session {
    place: Place,
    kept: Mutex<Kept>,
}

impl Credentials {
    /// Whoever has this token.
    pub(crate) fn token(token: &SecretString) -> Result<Self, Failure> {
        bearer(token.expose()).map(Self::Token)
    }

    /// The person who has signed in at `server`, if one has.
    pub(crate) fn kept_for(server: &str) -> Result<Option<Self>, Failure> {
        let Some(place) = Place::of(server) else { return Ok(None) };
        let kept = place.read()?;
        Ok(kept.map(|kept| Self::Person(Arc::new(Session { place, kept: Mutex::new(kept) }))))
    }

    /// What must not be shown to others.
    pub(crate) fn secrets(&self) -> Vec<String> {
        match self {
            Self::None => Vec::new(),
            Self::Token(bearer) => {
                bearer.to_str().ok().map(|token| token.trim_start_matches("Bearer ").to_owned()).into_iter().collect()
            }
            Self::Person(session) => match session.place.read() {
                Ok(Some(Kept { id_token, refresh_token, .. })) => {
                    [Some(id_token), refresh_token].into_iter().flatten().collect()
                }
                _ => Vec::new(),
            },
        }
    }

    /// What stands in the header of a request, if anything does.
    pub(crate) async fn authorization(&self) -> Result<Option<HeaderValue>, Failure> {
        match self {
            Self::None => Ok(None),
            Self::Token(bearer) => Ok(Some(bearer.clone())),
            Self::Person(session) => bearer(&session.id_token().await?).map(Some),
        }
    }
}

impl Session {
    async fn id_token(&self) -> Result<String, Failure> {
        let mut kept = self.kept.lock().await;
        if !kept.is_good(OffsetDateTime::now_utc()) {
            // Seldom, so that every other request does without its room.
            *kept = Box::pin(self.renewed()).await?;
        }
        Ok(kept.id_token.clone())
    }

    /// What is kept, once it is good again.
    async fn renewed(&self) -> Result<Kept, Failure> {
        let _lock = self.place.lock().await?;
        // Another process may have been here, or have signed out.
        let kept = self.place.read()?.ok_or_else(over)?;
        if kept.is_good(OffsetDateTime::now_utc()) {
            return Ok(kept);
        }
        let refresh_token = kept.refresh_token.as_deref().ok_or_else(over)?;
        let url: IssuerUrl = kept.issuer.parse().map_err(|_| over())?;
        let issuer = Issuer::discover(&url, &kept.client_id, kept.ca_file.as_deref()).await?;
        let tokens = match issuer.tokens("refresh_token", ("refresh_token", refresh_token)).await? {
            Answer::Given(tokens) => tokens,
            Answer::Refused(refusal) => {
                let reason = format!("does not renew the sign-in: {}; sign in again: chancery login", refusal.words());
                return Err(issuer.failed(reason));
            }
        };
        // An issuer need not give another ID token (OpenID Connect Core 1.0, section 12.2), nor another refresh token.
        let id_token = tokens.id_token.ok_or_else(over)?;
        let refresh_token = tokens.refresh_token.or_else(|| kept.refresh_token.clone());
        let renewed = Kept { id_token, refresh_token, ..kept };
        self.place.write(&renewed)?;
        Ok(renewed)
    }
}

fn over() -> Failure {
    Failure::Usage("the sign-in has ended; sign in again: chancery login".to_owned())
}

fn bearer(token: &str) -> Result<HeaderValue, Failure> {
    let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Failure::Usage("the token holds characters that no token has".to_owned()))?;
    bearer.set_sensitive(true);
    Ok(bearer)
}
