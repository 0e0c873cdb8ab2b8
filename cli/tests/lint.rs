//! `flagmeter lint` and `flagmeter crd`, as a person and a CI run them.
#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as it should be")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const VALID: &str =
    "apiVersion: flagmeter.dev/v1alpha1\nkind: Tenant\nmetadata:\n  name: acme\nspec:\n  monthlyQuota: 1\n";
const OTHER: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\n";

/// A folder of a test's own, with files in it; it goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn with(test: &str, files: &[(&str, &str)]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lint-{test}"));
        let _ = fs::remove_dir_all(&folder);
        for (name, text) in files {
            let file = folder.join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        Self(folder)
    }

    fn lint(&self, arguments: &[&str]) -> Output {
        flagmeter("lint").current_dir(&self.0).args(arguments).output().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn flagmeter(command: &str) -> Command {
    let mut flagmeter = Command::new(env!("CARGO_BIN_EXE_flagmeter"));
    flagmeter.arg(command);
    flagmeter
}

/// Exit code, stdout, stderr.
fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_problem_is_a_line_with_file_line_tenant_field_and_message() {
    let tenants = format!(
        "{VALID}---\napiVersion: flagmeter.dev/v1alpha1\nkind: Tenant\nmetadata:\n  name: globex\n  namespace: team-a\nspec:\n  \
         monthlyQuota: 1\n  billingDay: 32\n  alerts:\n    slack: {{}}\n    threshold: [80]\n---\n{OTHER}"
    );
    let folder = Folder::with("line", &[("tenants.yaml", &tenants)]);
    let (code, stdout, stderr) = told(&folder.lint(&["tenants.yaml"]));
    assert_eq!(
        stdout,
        "tenants.yaml:15: Tenant team-a/globex: spec.billingDay: Invalid value: 32: spec.billingDay in body should be \
         less than or equal to 31\n\
         tenants.yaml:17: Tenant team-a/globex: spec.alerts.slack: Invalid value: exactly one of url and secretRef \
         must be set\n\
         tenants.yaml:18: Tenant team-a/globex: spec.alerts.threshold: unknown field \"spec.alerts.threshold\"\n"
    );
    assert_eq!(
        stderr,
        "2 Tenants in 1 file: 1 valid, 1 with 3 problems; 1 object of other kinds passed over\n"
    );
    assert_eq!(code, 1);
}

#[test]
fn valid_tenants_are_exit_code_0_and_a_file_without_one_is_named() {
    let folder = Folder::with(
        "valid",
        &[("a.yaml", VALID), ("b.json", r#"{"kind": "ConfigMap", "apiVersion": "v1"}"#)],
    );
    let (code, stdout, stderr) = told(&folder.lint(&["a.yaml", "b.json"]));
    assert_eq!((code, stdout.as_str()), (0, ""));
    assert_eq!(
        stderr,
        "b.json: no Tenant in it\n1 Tenant in 2 files: 1 valid; 1 object of other kinds passed over\n"
    );
}

#[test]
fn stdin_and_folders_are_read() {
    let bad = VALID.replace("acme", "Acme");
    let folder = Folder::with(
        "folders",
        &[
            ("tenants/a.yaml", VALID),
            ("tenants/deep/b.yml", &bad),
            ("tenants/notes.txt", "no: [yaml"),
            ("empty/x.txt", ""),
        ],
    );
    let (code, stdout, _) = told(&folder.lint(&["tenants"]));
    assert_eq!((code, stdout.as_str()), (0, ""), "folders in it are not looked into");
    let (code, stdout, _) = told(&folder.lint(&["-R", "tenants"]));
    assert_eq!(code, 1);
    assert!(
        stdout.starts_with("tenants/deep/b.yml:4: Tenant Acme: metadata.name: Invalid value: \"Acme\""),
        "{stdout}"
    );
    let (code, stdout, _) = told(&folder.lint(&["empty"]));
    assert_eq!((code, stdout.contains("there is no *.yaml")), (2, true), "{stdout}");

    let mut lint = flagmeter("lint")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    lint.stdin.take().unwrap().write_all(bad.as_bytes()).unwrap();
    let (code, stdout, _) = told(&lint.wait_with_output().unwrap());
    assert_eq!((code, stdout.starts_with("<stdin>:4: Tenant Acme: ")), (1, true), "{stdout}");
}

#[test]
fn what_cannot_be_checked_is_exit_code_2_and_the_rest_is_checked_all_the_same() {
    let bad = VALID.replace("monthlyQuota: 1", "monthlyQuota: 0");
    let folder =
        Folder::with("unreadable", &[("broken.yaml", "a: [\n"), ("bad.yaml", &bad), ("latin.yaml", "")]);
    fs::write(folder.0.join("latin.yaml"), b"a: \xe4").unwrap();
    fs::write(folder.0.join("large.yaml"), vec![b'#'; (16 << 20) + 1]).unwrap();
    let files = ["broken.yaml", "missing.yaml", "latin.yaml", "large.yaml", "bad.yaml"];
    let (code, stdout, stderr) = told(&folder.lint(&files));
    assert_eq!(code, 2);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(lines.len(), 5, "{stdout}");
    for (line, start) in lines.iter().zip([
        "broken.yaml:1: unclosed bracket '['",
        "missing.yaml: cannot be opened: ",
        "latin.yaml: is not UTF-8",
        "large.yaml: is larger than 16 MiB",
        "bad.yaml:6: Tenant acme: spec.monthlyQuota: ",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
    assert!(stderr.contains("; 4 files could not be read"), "{stderr}");
    assert_eq!(told(&folder.lint(&[])).0, 2, "no file at all");
}

#[test]
fn an_id_that_two_tenants_claim_is_told_with_the_place_of_the_first() {
    let namespaced =
        |namespace: &str| VALID.replace("  name: acme", &format!("  namespace: {namespace}\n  name: acme"));
    let (a, b) = (namespaced("team-a"), namespaced("team-b"));
    let folder = Folder::with("claims", &[("a.yaml", &a), ("b.yaml", &b), ("c.yaml", &a)]);
    let (code, stdout, _) = told(&folder.lint(&["a.yaml", "b.yaml", "c.yaml"]));
    assert_eq!(code, 1);
    assert_eq!(
        stdout,
        "b.yaml:5: Tenant team-b/acme: metadata.name: the id \"acme\" is claimed in namespace \"team-a\" too \
         (a.yaml:5): whichever is there first has it; choose another name\n\
         c.yaml:5: Tenant team-a/acme: metadata.name: the Tenant \"acme\" is defined twice (a.yaml:5): the one that \
         is applied last would win\n"
    );
}

#[test]
fn a_secret_that_does_not_let_the_tenant_use_it_is_warned_of() {
    let tenant = |name: &str, secret: &str| {
        VALID.replace("name: acme", &format!("name: {name}"))
            + &format!("  alerts:\n    slack:\n      secretRef: {{ name: {secret} }}\n---\n")
    };
    let secret = |name: &str, metadata: &str, key: &str| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{ name: {name}, {metadata} }}\nstringData: {{ {key}: x }}\n---\n"
        )
    };
    let files = [
        ("a.yaml", tenant("acme", "bare")),
        ("b.yaml", tenant("globex", "labelled") + &tenant("initech", "labelled")),
        (
            "c.yaml",
            tenant("hooli", "keyless") + &tenant("umbrella", "listed") + &tenant("stark", "elsewhere"),
        ),
        (
            "d.yaml",
            secret("bare", "labels: {}", "url")
                + &secret("labelled", "labels: { flagmeter.dev/used-by: globex }", "url")
                + &secret("keyless", "annotations: { flagmeter.dev/used-by: '*' }", "uri")
                + &secret("listed", "annotations: { flagmeter.dev/used-by: 'acme, umbrella' }", "url"),
        ),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let folder = Folder::with("secrets", &files);
    let (code, stdout, stderr) = told(&folder.lint(&["."]));
    let label = |secret: &str, tenant: &str| {
        format!(
            "the Secret \"{secret}\" does not let this tenant use it: it needs the label flagmeter.dev/used-by: {tenant}, or \
             an annotation of that name with a list of tenants, or \"*\""
        )
    };
    assert_eq!(
        stdout,
        format!(
            "./a.yaml:9: Tenant acme: spec.alerts.slack.secretRef: warning: {}\n\
             ./b.yaml:19: Tenant initech: spec.alerts.slack.secretRef: warning: {}\n\
             ./c.yaml:9: Tenant hooli: spec.alerts.slack.secretRef: warning: the Secret \"keyless\" has no key \"url\"\n",
            label("bare", "acme"),
            label("labelled", "initech")
        )
    );
    assert_eq!(
        stderr,
        "6 Tenants in 4 files: 6 valid, 3 warnings; 4 objects of other kinds passed over\n\
         1 reference to a Secret that is not in these files: whether it is in the cluster, and lets the tenant use it by \
         flagmeter.dev/used-by, is not known here\n"
    );
    assert_eq!(code, 0);
}

#[test]
fn a_typical_mistake_in_a_tenant_is_one_line_that_says_what_to_write() {
    let boost = |from: &str, until: &str| {
        format!("  quotaBoosts: [{{ tokens: 5, from: '{from}', until: '{until}' }}]\n")
    };
    let cases: [(&str, String, &str); 24] = [
        // what goes in place of the quota, what comes after it, what is said
        ("monthlyQuota: 1M", String::new(), "write a whole number of tokens without a unit, such as 1000000"),
        ("monthlyQuota: '1000000'", String::new(), "write a whole number of tokens without a unit"),
        (
            "displayName: Acme",
            String::new(),
            "spec.monthlyQuota: Required value; write a whole number of tokens",
        ),
        ("monthlyQuota: 0", String::new(), "should be greater than or equal to 1"),
        ("monthlyQouta: 5", "  monthlyQuota: 5\n".to_owned(), "unknown field \"spec.monthlyQouta\""),
        ("monthlyQuota: 5", "  billingDay: 32\n".to_owned(), "should be less than or equal to 31"),
        ("monthlyQuota: 5", "  billingDay: 1st\n".to_owned(), "write a day of the month, from 1 to 31"),
        (
            "monthlyQuota: 5",
            "  timeZone: Berlin\n".to_owned(),
            "an IANA time zone, such as UTC or Europe/Berlin",
        ),
        (
            "monthlyQuota: 5",
            "  alerts: { thresholds: [0.8] }\n".to_owned(),
            "as whole numbers, such as [80, 100]",
        ),
        (
            "monthlyQuota: 5",
            "  alerts: { thresholds: ['80'] }\n".to_owned(),
            "as whole numbers, such as [80, 100]",
        ),
        (
            "monthlyQuota: 5",
            "  alerts: { slack: { url: 'ftp://h' } }\n".to_owned(),
            "such as https://hooks.slack.com/services/",
        ),
        (
            "monthlyQuota: 5",
            "  alerts: { slack: {} }\n".to_owned(),
            "exactly one of url and secretRef must be set",
        ),
        (
            "monthlyQuota: 5",
            "  alerts: { slack: { secretRef: {} } }\n".to_owned(),
            "spec.alerts.slack.secretRef.name: Required value",
        ),
        (
            "monthlyQuota: 5",
            boost("2026-03-20T00:00:00Z", "2026-03-10T00:00:00Z"),
            "from must be before until",
        ),
        (
            "monthlyQuota: 5",
            boost("2026-03-10", "2026-03-20T00:00:00Z"),
            "with its time and zone, such as 2026-03-10T00:00:00Z",
        ),
        (
            "monthlyQuota: 5",
            "  deletionPolicy: delete\n".to_owned(),
            "supported values: \"Retain\", \"Delete\"",
        ),
        ("monthlyQuota: 5", "  suspended: 'yes'\n".to_owned(), "write true or false, without quotes"),
        (
            "monthlyQuota: 5",
            "  alerts: { slack: { url: 'https://h', enabled: 'no' } }\n".to_owned(),
            "write true or false, without quotes",
        ),
        ("monthlyQuota: 5", "  monthlyQuota: 6\n".to_owned(), "duplicate field \"spec.monthlyQuota\""),
        ("monthlyQuota: 5", "  displayName: ''\n".to_owned(), "should be at least 1 chars long"),
        (
            "monthlyQuota: 5",
            "  alerts: { threshold: [80] }\n".to_owned(),
            "unknown field \"spec.alerts.threshold\"",
        ),
        ("monthlyQuota: 9007199254740992", String::new(), "should be less than or equal to 9007199254740991"),
        ("monthlyQuota: -5", String::new(), "should be greater than or equal to 1"),
        ("monthlyQuota: 1.5", String::new(), "write a whole number of tokens without a unit"),
    ];
    for (number, (quota, rest, expected)) in cases.into_iter().enumerate() {
        let tenant = VALID.replace("monthlyQuota: 1\n", &format!("{quota}\n{rest}"));
        let folder = Folder::with(&format!("mistake-{number}"), &[("a.yaml", &tenant)]);
        let (code, stdout, stderr) = told(&folder.lint(&["a.yaml"]));
        assert_eq!((code, stdout.lines().count()), (1, 1), "{tenant}{stdout}");
        assert!(stdout.starts_with("a.yaml:") && stdout.contains(expected), "{tenant}{stdout}");
        assert!(stderr.starts_with("1 Tenant in 1 file: 0 valid, 1 with 1 problem"), "{stderr}");
    }
}

#[test]
fn a_typical_mistake_around_a_spec_says_what_to_write() {
    let tenant = "a Tenant has apiVersion: flagmeter.dev/v1alpha1 and kind: Tenant";
    for (number, (from, to, code, lines, expected)) in [
        // Of a name the API server says what Kubernetes takes as well.
        ("name: acme", "name: Ux_K", 1, 2, "at most 63 lower-case letters, digits and '-'"),
        ("name: acme", "name: ux.k", 1, 1, "at most 63 lower-case letters, digits and '-'"),
        ("  name: acme", "  nam: acme", 1, 2, "unknown field \"metadata.nam\""),
        ("v1alpha1", "v1", 1, 1, tenant),
        ("kind: Tenant", "kind: Tenants", 1, 1, tenant),
        ("kind: Tenant\n", "", 1, 1, tenant),
        ("apiVersion: flagmeter.dev/v1alpha1\n", "", 1, 1, tenant),
        ("spec:\n", "spec:\n\t", 2, 1, "a.yaml:6: tabs disallowed"),
        ("spec:", "spec: [", 2, 1, "a.yaml:5: unclosed bracket '['"),
    ]
    .into_iter()
    .enumerate()
    {
        let text = VALID.replace(from, to);
        assert_ne!(text, VALID);
        let folder = Folder::with(&format!("around-{number}"), &[("a.yaml", &text)]);
        let (found, stdout, _) = told(&folder.lint(&["a.yaml"]));
        assert_eq!((found, stdout.lines().count()), (code, lines), "{text}{stdout}");
        assert!(stdout.contains(expected), "{text}{stdout}");
    }
}

#[test]
fn a_file_that_is_not_there_is_not_said_to_be_without_tenants() {
    let folder = Folder::with("nothere", &[]);
    fs::create_dir_all(&folder.0).unwrap();
    let (code, stdout, stderr) = told(&folder.lint(&["nothere/"]));
    assert_eq!(code, 2);
    assert!(stdout.starts_with("nothere/: cannot be opened: "), "{stdout}");
    assert_eq!(stderr, "0 Tenants in 0 files: 0 valid; 1 file could not be read\n");
}

#[test]
fn json_has_the_same_for_machines() {
    let bad = VALID.replace("monthlyQuota: 1", "monthlyQuota: 1\n  timeZone: Europe/Berlino");
    let folder =
        Folder::with("json", &[("bad.yaml", &bad), ("broken.yaml", "a: [\n"), ("other.yaml", OTHER)]);
    let output = folder.lint(&["--json", "bad.yaml", "broken.yaml", "other.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let former = folder.lint(&["--output", "json", "bad.yaml", "broken.yaml", "other.yaml"]);
    assert_eq!(former.stdout, output.stdout, "the former spelling");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let message = report["problems"][0]["message"].clone();
    assert!(message.as_str().unwrap().contains("unknown time zone Europe/Berlino"), "{message}");
    let expected = json!([{
        "file": "bad.yaml", "line": 7, "namespace": null, "name": "acme", "field": "spec.timeZone",
        "reason": "FieldValueInvalid", "message": message,
    }]);
    assert_eq!(report["problems"], expected);
    assert_eq!(
        (&report["unreadable"][0]["file"], &report["unreadable"][0]["line"]),
        (&json!("broken.yaml"), &json!(1))
    );
    assert_eq!(report["withoutTenant"], json!(["other.yaml"]));
    assert_eq!(
        report["summary"],
        json!({ "files": 2, "tenants": 1, "invalidTenants": 1, "passedOver": 1, "unknownSecrets": 0 })
    );
    assert_eq!(report["warnings"], json!([]));
}

#[test]
fn crd_prints_what_the_chart_installs_and_nobody_has_to_read_it_all() {
    let (code, stdout, _) = told(&flagmeter("crd").output().unwrap());
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/flagmeter/files/tenants.yaml");
    assert_eq!((code, stdout), (0, fs::read_to_string(chart).unwrap()));

    let mut reader = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let closed = reader.stdin.take().unwrap();
    reader.wait().unwrap();
    let output = flagmeter("crd").stdout(closed).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(told(&output), (0, String::new(), String::new()));
}
