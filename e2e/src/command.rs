//! The command `chancery` as a user runs it: arguments and input go in, an exit code and text come out.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::{process::own_program, wait::PATIENCE};

/// A user in a folder, who has pointed the command at a control plane or not.
#[derive(Clone, Debug)]
pub struct User {
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    patience: Duration,
}

/// What a command came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to standard output.
    pub output: String,
    /// What it wrote to standard error.
    pub errors: String,
}

impl User {
    /// One who works in `folder`.
    pub fn in_folder(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), environment: Vec::new(), patience: PATIENCE }
    }

    /// The same, asking the control plane at `server` with this token.
    pub fn of(&self, server: &str, token: &str) -> Self {
        let environment = vec![("CHANCERY_SERVER", server.to_owned()), ("CHANCERY_TOKEN", token.to_owned())];
        Self { environment, ..self.clone() }
    }

    /// The same, with one more variable in the environment.
    pub fn with(&self, name: &'static str, value: &str) -> Self {
        let mut user = self.clone();
        user.environment.push((name, value.to_owned()));
        user
    }

    /// The same, who waits so long for a command to end.
    pub fn patient(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    /// The same, asking the control plane at `server` as whoever signs in there.
    pub fn at(&self, server: &str) -> Self {
        Self { environment: vec![("CHANCERY_SERVER", server.to_owned())], ..self.clone() }
    }

    /// Runs `chancery` with these arguments, separated by blanks, whatever comes of it.
    pub async fn runs(&self, arguments: &str, input: &str) -> Result<Outcome> {
        let mut command = Command::new(own_program("chancery")?);
        // What the developer has set for a control plane of their own must not leak in.
        let others = [
            "CHANCERY_SERVER",
            "CHANCERY_TOKEN",
            "CHANCERY_DATA_DIR",
            "CHANCERY_DATABASE",
            "CHANCERY_CONFIG",
            "CHANCERY_ISSUER_CA",
        ];
        for name in others {
            command.env_remove(name);
        }
        command
            .args(arguments.split_whitespace())
            // Nor where they have signed in.
            .env("XDG_CONFIG_HOME", self.folder.join("config"))
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().context("the input is a pipe")?;
        let exchange = async {
            // A command that does not want its input closes it.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            child.wait_with_output().await
        };
        let output =
            timeout(self.patience, exchange).await.with_context(|| format!("chancery {arguments} does not end"))??;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let code = output.status.code().context("it was killed")?;
        Ok(Outcome { code, output: text(output.stdout), errors: text(output.stderr) })
    }

    /// Runs `chancery` with these arguments, which has to succeed, and returns what it printed.
    pub async fn does(&self, arguments: &str, input: &str) -> Result<String> {
        let Outcome { code, output, errors } = self.runs(arguments, input).await?;
        ensure!(code == 0, "chancery {arguments} ended with {code}\n{output}\n{errors}");
        Ok(output)
    }

    /// As [`User::does`], for what prints JSON.
    pub async fn asks(&self, arguments: &str) -> Result<Value> {
        let output = self.does(arguments, "").await?;
        serde_json::from_str(&output).with_context(|| format!("chancery {arguments} printed no JSON: {output}"))
    }
}
