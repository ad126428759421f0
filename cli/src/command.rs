//! The commands and how each is run.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use tokio::runtime::Builder;

use crate::{
    agent, archive, audit, backup, bootstrap, bundle, cert, demo, dev, doctor, endpoints, enrol, events, explain,
    explain_kind, failure::Failure, fleet, foreign, health, history, limits, load, login, plan, proxy_config,
    quarantine, resources, rollout, schema, seen, token,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the change or the request was refused: problems, a conflict, nothing there; or the command failed
  2  the command line is wrong, or a file cannot be read
  3  the control plane cannot be reached, refuses the token, or fails
  4  the change is stored, but a proxy refused it or did not apply it in time";

/// Instructs and credentials fleets of Envoy proxies
#[derive(Debug, Parser)]
#[command(name = "chancery", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run everything on this machine: control plane, rate limiter, Envoy, demo services
    Dev(dev::DevArgs),
    /// Run a demo service, which can be made to fail
    DemoUpstream(demo::DemoUpstreamArgs),
    /// Check files and say what would change, for which proxies, and whose connections would drain
    Plan(plan::PlanArgs),
    /// Say what becomes of a request, without sending it
    Explain(explain::ExplainArgs),
    /// Say what a field of a resource means
    ExplainKind(explain_kind::ExplainKindArgs),
    /// Print the JSON Schema of documents, for editors
    Schema(schema::SchemaArgs),
    /// Make what files say, all of it or nothing, as one revision
    Apply(resources::ApplyArgs),
    /// Show resources of a kind, or one
    Get(resources::GetArgs),
    /// Show one resource and its latest changes
    Describe(resources::OneArgs),
    /// Delete a resource, or those in files
    Delete(resources::DeleteArgs),
    /// Show who changed what, when and why
    History(history::HistoryArgs),
    /// Show what differs between two revisions
    Diff(history::DiffArgs),
    /// Show who wrote each field of a resource, when and why
    Blame(resources::OneArgs),
    /// Undo what a revision did, as a new revision
    Revert(history::RevertArgs),
    /// Print all resources as YAML, to be kept or applied elsewhere
    Export(archive::ExportArgs),
    /// Put what files hold into a control plane that has nothing yet, or make resources of what others have
    Import(foreign::ImportCommand),
    /// Show proxies and what they have applied
    Proxies(fleet::ProxiesArgs),
    /// Show what a proxy was given, or where it has something else
    ProxyConfig(proxy_config::ProxyConfigArgs),
    /// Follow what happens: who comes and goes, applies and refuses
    Events(events::EventsArgs),
    /// Print the bootstrap file that an Envoy starts with
    Bootstrap(bootstrap::BootstrapArgs),
    /// Show limits, where they are used, and why a request would be refused
    Limits(limits::LimitsArgs),
    /// Show how much traffic services have, and how much of it fails
    Load(load::LoadArgs),
    /// Show the last requests that a fleet has told the control plane of
    Traffic(seen::TrafficSeenArgs),
    /// Show or release what fleets are not served because a proxy rejected it
    Quarantine(quarantine::QuarantineArgs),
    /// How far revisions have come to fleets that get them in stages
    Rollout(rollout::RolloutArgs),
    /// Show, register and deregister endpoints of services
    Endpoints(endpoints::EndpointsArgs),
    /// Issue certificates
    Cert(cert::CertArgs),
    /// Make, show and revoke enrolments, by which machines become proxies
    Enrol(enrol::EnrolArgs),
    /// On the machine of a proxy: enrol, and renew its certificate for as long as this runs
    Agent(agent::AgentArgs),
    /// Sign in with the issuer that the control plane trusts
    Login(login::LoginArgs),
    /// Forget the sign-in
    Logout(login::LogoutArgs),
    /// Say who asks, and what they may do
    Whoami(login::WhoAmIArgs),
    /// Make, show, rotate and revoke tokens for the API
    Token(token::TokenArgs),
    /// Show who did what, and check that nothing of it was changed
    Audit(audit::AuditArgs),
    /// Look at an installation, before or after it runs, and say what to do about what is wrong
    Doctor(doctor::DoctorArgs),
    /// Gather what others need to see to help, without secrets, in one file
    Bundle(bundle::BundleArgs),
    /// Say whether a program is ready, for images without a shell
    Health(health::HealthArgs),
    /// Keep everything in an encrypted file, check such a file, and restore it
    Backup(backup::BackupArgs),
}

/// Runs the command; what goes wrong is told on stderr.
pub fn run(cli: Cli) -> ExitCode {
    // Servers use every core; what only asks one needs no threads.
    let mut builder = match cli.command {
        Command::Dev(_) | Command::DemoUpstream(_) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(source) => return failed(&Failure::Io { what: "threads".to_owned(), source }),
    };
    match runtime.block_on(dispatch(cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failed(&failure),
    }
}

async fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Dev(args) => Ok(Box::pin(dev::run(args)).await?),
        Command::DemoUpstream(args) => demo::run(args).await,
        Command::Plan(args) => plan::plan(args).await,
        Command::Explain(args) => explain::explain(args).await,
        Command::ExplainKind(args) => explain_kind::explain_kind(&args),
        Command::Schema(args) => schema::schema(&args),
        Command::Apply(args) => resources::apply(args).await,
        Command::Get(args) => resources::get(args).await,
        Command::Describe(args) => resources::describe(args).await,
        Command::Delete(args) => resources::delete(args).await,
        Command::History(args) => history::history(args).await,
        Command::Diff(args) => history::diff(args).await,
        Command::Blame(args) => history::blame(args).await,
        Command::Export(args) => archive::export(args).await,
        Command::Import(args) => foreign::import(args).await,
        Command::Revert(args) => history::revert(args).await,
        Command::Proxies(args) => fleet::proxies(args).await,
        Command::ProxyConfig(args) => proxy_config::run(args).await,
        Command::Events(args) => events::run(args).await,
        Command::Bootstrap(args) => bootstrap::bootstrap(args),
        Command::Limits(args) => limits::run(args).await,
        Command::Load(args) => load::load(args).await,
        Command::Traffic(args) => seen::traffic(args).await,
        Command::Quarantine(args) => quarantine::quarantine(args).await,
        Command::Rollout(args) => rollout::rollout(args).await,
        Command::Endpoints(args) => endpoints::run(args).await,
        Command::Cert(args) => Ok(cert::run(args)?),
        Command::Enrol(args) => enrol::enrol(args).await,
        Command::Agent(args) => Ok(agent::agent(args).await?),
        Command::Login(args) => login::login(args).await,
        Command::Logout(args) => login::logout(args).await,
        Command::Whoami(args) => login::whoami(args).await,
        Command::Token(args) => token::token(args).await,
        Command::Audit(args) => audit::audit(args).await,
        Command::Doctor(args) => doctor::doctor(args).await,
        Command::Bundle(args) => bundle::bundle(args).await,
        Command::Health(args) => health::health(args).await,
        Command::Backup(args) => backup::backup(args).await,
    }
}

fn failed(failure: &Failure) -> ExitCode {
    for line in failure.lines() {
        eprintln!("{line}");
    }
    ExitCode::from(failure.exit_code())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_says_what_the_exit_codes_mean() {
        insta::assert_snapshot!(Cli::command().render_help());
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let parses = |line: &str| Cli::try_parse_from(line.split_whitespace()).is_ok();
        for line in [
            "chancery apply -f a.yaml -f dir --wait --timeout 10s -m why --if-revision 7",
            "chancery apply -f - --wait=applied --dry-run -o yaml",
            "chancery plan -f a.yaml",
            "chancery plan -f a.yaml --traffic access.log --fleet edge",
            "chancery plan -f a.yaml --seen --fleet edge",
            "chancery traffic edge -o json",
            "chancery explain GET https://a.example.com/ -H x-a:1 -H x-b:2 --fleet edge -o json",
            "chancery import gateway-api a.yaml dir - --fleet edge --team shop --cluster-domain k8s.internal --strict",
            "chancery import envoy envoy.yaml --fleet edge",
            "chancery import openapi - --listener edge/web --service books --server 1 --host a.com --endpoint b:80 -o json",
            "chancery explain-kind",
            "chancery explain-kind Route.spec.rules.retry --recursive",
            "chancery schema",
            "chancery schema rate-limit",
            "chancery get routes",
            "chancery get svc checkout -o json",
            "chancery delete route checkout --wait",
            "chancery delete route checkout --dry-run -m why",
            "chancery revert 7 --wait --timeout 10s -m why --dry-run",
            "chancery delete -f a.yaml",
            "chancery delete route checkout --if-revision 7",
            "chancery revert 7 --if-revision 9",
            "chancery plan -f dir --prune-team payments --prune-label app=shop -o json",
            "chancery apply -f dir --prune-label app=shop --prune-label tier=web --if-revision 7",
            "chancery diff 7",
            "chancery diff 7 9 --fields -o table",
            "chancery blame route checkout",
            "chancery export",
            "chancery import dir more.yaml -m moved",
            "chancery history",
            "chancery history route checkout",
            "chancery proxies edge-1 --fleet edge",
            "chancery proxy-config edge-1 --fleet edge --type cluster -o yaml",
            "chancery proxy-config edge-1 --diff",
            "chancery events --fleet edge --proxy edge-1 -o json",
            "chancery dev --port-offset 100 --no-envoy",
            "chancery dev --chaos",
            "chancery demo-upstream --addr 127.0.0.1:0 --control-addr 127.0.0.1:0 --chaos faults.json",
            "chancery dev --redis redis://127.0.0.1:6379/1",
            "chancery cert issue --fleet edge --id edge-1 --out dir",
            "chancery endpoints list checkout",
            "chancery endpoints register checkout --address ::1 --port 8080 --ttl 10s --health draining --keep",
            "chancery endpoints deregister checkout 10.0.0.1:8080",
            "chancery get rate-limits",
            "chancery get teams",
            "chancery login",
            "chancery login --issuer https://login.example.com --client-id chancery --scope openid --issuer-ca ca.pem",
            "chancery logout --server http://127.0.0.1:8080",
            "chancery whoami -o json",
            "chancery token list",
            "chancery token create ci --role owner --team a --team b --scope routes:write --scope *:read --expires-in 30d",
            "chancery token rotate ci --grace 0s -o json",
            "chancery token revoke ci",
            "chancery audit list --actor ci --kind Route --name shop --action write --outcome refused --since 24h --limit 9",
            "chancery audit show 7 -o yaml",
            "chancery audit verify --file log --head 7:ab",
            "chancery audit export",
            "chancery doctor",
            "chancery doctor --before-install --control-plane-config a.toml --sidecar-config b.toml -o json",
            "chancery bundle --output a.tar.gz --envoy-admin http://127.0.0.1:9901 --data-dir d",
            "chancery health",
            "chancery health 127.0.0.1:6070 --timeout 500ms",
            "chancery health http://limiter:6070/readyz",
            "chancery backup create --to backups/ --recipient age1x --keep 7 --keep-for 30d --database sqlite://a.db",
            "chancery backup create --to a.age --passphrase-file p --no-files",
            "chancery backup create --to a.age --recipients-file r --identity k --data-dir data -o json",
            "chancery backup verify a.age --identity k",
            "chancery backup restore a.age --identity k --replace-revision 7 --accept-findings",
            "chancery load",
            "chancery load checkout --fleet edge -o json",
            "chancery quarantine list",
            "chancery quarantine release --fleet edge",
            "chancery limits show",
            "chancery limits show per-client -o json",
            "chancery limits check per-client x-api-key=k1 remote_address=10.0.0.1 --fleet edge",
            "chancery limits check all --fleet edge --limiter http://10.0.0.1:6070 --hits 5",
            "chancery bootstrap --fleet edge --id edge-1 --xds-address [::1]:18000 --sotw --admin 127.0.0.1:9901",
        ] {
            assert!(parses(line), "{line}");
        }
        for line in [
            "chancery",
            "chancery apply",
            "chancery apply -f a.yaml --timeout 10s",
            "chancery apply -f a.yaml --wait --timeout 61s",
            "chancery apply -f a.yaml --wait=never",
            "chancery import openapi a.yaml",
            "chancery import envoy a.yaml",
            "chancery import gateway-api",
            "chancery import gateway-api a.yaml -o table",
            "chancery explain-kind --recursive",
            "chancery schema moon",
            "chancery get",
            "chancery get widgets",
            "chancery get route ../x",
            "chancery describe route",
            "chancery delete route",
            "chancery delete route a -f b.yaml",
            "chancery delete -f b.yaml --dry-run",
            "chancery delete -f b.yaml --if-revision 7",
            "chancery apply -f dir --prune-label app",
            "chancery import",
            "chancery import -m moved",
            "chancery diff",
            "chancery blame route",
            "chancery delete",
            "chancery history route",
            "chancery revert x",
            "chancery proxy-config",
            "chancery endpoints",
            "chancery endpoints register checkout --address localhost --port 80",
            "chancery endpoints register checkout --address ::1 --port 80 --ttl 11m",
            "chancery endpoints deregister checkout a/b",
            "chancery limits",
            "chancery demo-upstream",
            "chancery login --issuer https://login.example.com",
            "chancery login --issuer http://login.example.com --client-id chancery",
            "chancery login --scope openid",
            "chancery token create ci",
            "chancery plan -f a.yaml --seen",
            "chancery plan -f a.yaml --seen --traffic a.log --fleet edge",
            "chancery token create ci --role boss",
            "chancery token create ci --role owner --scope routes",
            "chancery token revoke",
            "chancery audit",
            "chancery audit list --since yesterday",
            "chancery backup create --to a.age",
            "chancery backup create --recipient age1x",
            "chancery backup create --to a.age --recipient age1x --passphrase-file p",
            "chancery backup create --to a.age --recipient age1x --keep 0",
            "chancery backup verify a.age",
            "chancery backup restore a.age --identity k --passphrase-file p",
            "chancery audit verify --head ab",
            "chancery doctor --after-install",
            "chancery health limiter",
            "chancery limits check per-client",
            "chancery limits check per-client x --fleet edge",
            "chancery bootstrap --fleet edge --id ../x",
            "chancery bootstrap --fleet edge --id a --xds-address nowhere",
        ] {
            assert!(!parses(line), "{line}");
        }
    }
}
