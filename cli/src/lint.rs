//! `flagmeter lint`: whether a cluster would take the Tenants in some files.

mod claims;
mod files;
mod hints;
mod report;
mod secrets;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use flagmeter_crds::lint::{Document, Linter, Verdict};

use crate::output::{self, Form};
use claims::Claims;
use report::{Finding, Report};
use secrets::Secrets;

/// Check Tenants in files of YAML or JSON, without a cluster
///
/// It finds all that the API server would refuse, in its own words (schema and CEL rules, fields that are unknown or
/// given twice), what the operator could not bring into force, and ids that two Tenants claim. Each problem is one line:
/// file, line, Tenant, field, message.
///
/// It warns of a Secret among the files that a Tenant names and may not use: its label, or annotation,
/// flagmeter.dev/used-by does not name the Tenant, or it has no such key. Of Secrets that are not among the files it
/// knows nothing.
///
/// The files are taken for those of one cluster: run it once for each. Objects of other kinds are passed over and
/// counted. Problems go to stdout, the summary to stderr. Needs no database.
#[derive(clap::Args)]
#[command(
    after_long_help = "Exit code 0: all Tenants are valid, or there are none; there may be warnings. 1: some are not. 2: a file cannot be \
    read or is neither YAML nor JSON, or the command line is wrong.\n\n\
    At most 16 MiB and 10,000 documents a file, and 10,000 files a folder.\n\n\
    Examples:\n  flagmeter lint -R tenants/\n  kustomize build . | flagmeter lint -"
)]
pub(crate) struct Arguments {
    /// Files, folders (their *.yaml, *.yml and *.json), or - for stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Look into the folders of folders too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Take http URLs of alerts too
    ///
    /// As a cluster does where the chart's alerts.allowPrivateAddresses is true.
    #[arg(long)]
    allow_http: bool,
    #[command(flatten)]
    form: Form,
    /// The former spelling of --json
    #[arg(short, long, value_enum, hide = true, conflicts_with = "json")]
    output: Option<Format>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let linter = Linter::new()?.allowing_http(arguments.allow_http);
    let (mut report, mut claims, mut secrets) = (Report::default(), Claims::default(), Secrets::default());
    for path in &arguments.files {
        match files::under(path, arguments.recursive) {
            Ok(files) => {
                let tenants =
                    files.iter().map(|file| check(file, &linter, &mut claims, &mut secrets, &mut report));
                // Nobody knows what is in a file that cannot be read.
                let tenants: Vec<Option<usize>> = tenants.collect();
                if tenants.into_iter().sum::<Option<usize>>() == Some(0) {
                    report.without_tenant.push(files::shown(path));
                }
            }
            Err(error) => report.unreadable(&files::shown(path), None, format!("{error:#}")),
        }
    }
    (report.warnings, report.unknown_secrets) = secrets.judge();
    let as_json = arguments.form.json || arguments.output == Some(Format::Json);
    output::print(&if as_json { report.json()? } else { report.text() })?;
    output::note(&report.summary());
    Ok(report.exit_code())
}

/// Checks a file; how many Tenants are in it, or `None` if it cannot be read.
fn check(
    path: &Path,
    linter: &Linter,
    claims: &mut Claims,
    secrets: &mut Secrets,
    report: &mut Report,
) -> Option<usize> {
    let file = files::shown(path);
    let read = files::read(path).map_err(|error| (None, format!("{error:#}")));
    let read = read.and_then(|text| Document::read(&text).map_err(|error| (error.line, error.message)));
    let documents = match read {
        Ok(documents) => documents,
        Err((line, message)) => {
            report.unreadable(&file, line, message);
            return None;
        }
    };
    report.files += 1;
    let mut tenants = 0;
    for document in &documents {
        let problems = match linter.judge(document) {
            Verdict::Tenant(problems) => problems,
            Verdict::Misnamed(problem) => vec![problem],
            Verdict::Other => {
                secrets.give(document);
                report.passed_over += 1;
                continue;
            }
        };
        tenants += 1;
        let (problems, unchecked) = hints::essential(problems);
        report.unchecked |= unchecked;
        let mut findings: Vec<Finding> = problems
            .iter()
            .map(|problem| Finding {
                reason: problem.reason.as_str(),
                field: problem.field.clone(),
                message: match hints::hint(problem) {
                    Some(hint) => format!("{}; {hint}", problem.shown()),
                    None => problem.shown(),
                },
                ..Finding::at(&file, document, &problem.place)
            })
            .collect();
        findings.extend(claims.add(&file, document));
        secrets.name(&file, document);
        findings.sort_by_key(|finding| finding.line);
        report.tenant(findings);
    }
    Some(tenants)
}
