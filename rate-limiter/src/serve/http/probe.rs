//! A limit that is tried out: exactly as many hits are admitted as it has, by the cells that decide here.
//!
//! Nobody's counters are touched. The cell that is charged has a name by chance (128 bits) that no rule leads to, so it is charged
//! by nothing else; no rule's metrics count it; with Redis it is forgotten there an hour later. A probe costs a fixed number of charges,
//! and one at a time is made, so that whoever reaches the port cannot make work of it.

use std::{collections::BTreeMap, time::Duration};

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use tokio::sync::Semaphore;

use super::{Http, limits, problem::Problem};
use crate::{
    decide::Limiter,
    model::{
        descriptor::Hits,
        key::CellKey,
        limit::{Algorithm, Limit},
        rule::Policy,
    },
    store::{Ask, Charging, Outcomes},
};

/// What the probed limit admits an hour: during a probe no new token comes.
const ALLOWED: u32 = 10;

/// Hits of a probe beyond that.
const BEYOND: u32 = 5;

const PER: Duration = Duration::from_secs(3600);

static TURN: Semaphore = Semaphore::const_new(1);

/// What became of a probe.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct ProbeDto {
    /// Hits that the limit has.
    allowed: u32,
    /// Hits that were tried.
    tried: u32,
    /// Hits that were admitted.
    admitted: u32,
    /// Who decided, by how often.
    sources: BTreeMap<&'static str, u32>,
}

/// `POST /limits/probe`
pub(super) async fn probe(State(http): State<Http>) -> Result<Json<ProbeDto>, Problem> {
    let Ok(_turn) = TURN.try_acquire() else {
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "another probe is under way; try again in a second"));
    };
    try_out(&http.limiter).await.map(Json)
}

async fn try_out(limiter: &Limiter) -> Result<ProbeDto, Problem> {
    let limit = Limit::new(ALLOWED, PER, Some(ALLOWED), Algorithm::TokenBucket);
    let limit = limit.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let ask = Ask { key: CellKey(rand::random()), limit, hits: Hits::Take(1), policy: Policy::default() };
    // Until it decides as it does in the long run.
    limiter.store().settled().await;
    let tried = ALLOWED + BEYOND;
    let (mut admitted, mut sources) = (0, BTreeMap::new());
    for _ in 0..tried {
        let outcomes: Outcomes = match limiter.store().charge(&[ask]) {
            Charging::Done(outcomes) => outcomes,
            Charging::Waiting(outcomes) => outcomes.await,
        };
        for outcome in outcomes {
            admitted += u32::from(outcome.admitted);
            *sources.entry(limits::source(outcome.source)).or_insert(0) += 1;
        }
    }
    Ok(ProbeDto { allowed: ALLOWED, tried, admitted, sources })
}
