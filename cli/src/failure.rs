//! Every way in which a command fails: what it says, and its exit code.

use std::io;

use chancery_control_plane::api::{ProblemDetails, text::TextError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server refused the request.
    #[error("{}", .0.detail)]
    Refused(Box<ProblemDetails>),
    /// As [`Failure::Refused`], told line by line.
    #[error("{} problems", .0.len())]
    Problems(Vec<String>),
    #[error("{file}:{source}")]
    Syntax { file: String, source: TextError },
    /// What is imported would be mixed with what is there.
    #[error("{0}")]
    NotEmpty(String),
    #[error("{0}")]
    Usage(String),
    #[error("cannot use {what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("cannot reach the control plane at {server}: {reason}")]
    Unreachable { server: String, reason: String },
    #[error("the control plane at {server} {reason}")]
    Server { server: String, reason: String },
    #[error("{} {issuer}{} {reason}", if *.away { "cannot reach the issuer" } else { "the issuer" }, if *.away { ":" } else { "" })]
    Issuer { issuer: String, reason: String, away: bool },
    /// What was written is stored, but not everywhere in force.
    #[error("{0}")]
    NotApplied(String),
    /// A command that does not speak to a control plane failed.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Failure {
    /// What the process ends with; `chancery --help` documents it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::Problems(_) | Self::Syntax { .. } | Self::NotEmpty(_) | Self::Failed(_) => 1,
            Self::Usage(_) | Self::Io { .. } => 2,
            Self::Unreachable { .. } | Self::Server { .. } | Self::Issuer { .. } => 3,
            Self::NotApplied(_) => 4,
        }
    }

    /// What it says, line by line.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Refused(details) if !details.problems.is_empty() => {
                details.problems.iter().map(ToString::to_string).collect()
            }
            Self::Problems(lines) => lines.clone(),
            Self::Syntax { file, source } => {
                vec![format!("{file}:{}:{}: {}", source.line, source.column, source.reason)]
            }
            other => vec![format!("chancery: {other}")],
        }
    }
}
