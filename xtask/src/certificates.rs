//! Certificates and kubeconfigs of the control plane.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use serde_json::json;

use crate::account::{Account, write_secret};
use crate::state::State;

/// Written last: when it is there, all others are.
const LAST: &str = "service-accounts.key";

/// Names under which the API server is reached; the last is the first address of its Service range.
const SERVER_NAMES: [&str; 6] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost", "127.0.0.1", "10.43.0.1"];

/// Clients with their common names. Each may do all: this is one person's machine. The operator's
/// rights are the chart's.
const CLIENTS: [(&str, &str); 3] = [
    ("admin", "admin"),
    ("controller-manager", "system:kube-controller-manager"),
    ("process-node", "flagmeter:process-node"),
];

/// Makes what is missing: an authority, the API server's certificate, one for each client, and the key
/// that signs tokens of service accounts.
pub(crate) fn prepare(state: &State, account: &Account) -> Result<()> {
    if state.pki(LAST).exists() {
        return Ok(());
    }
    let key = KeyPair::generate()?;
    let mut authority = parameters("flagmeter-dev", &[])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let certificate = authority.self_signed(&key)?;
    account.write_secret(&state.pki("ca.crt"), &certificate.pem())?;
    let issuer = Issuer::new(authority, key);

    let mut server = parameters("kube-apiserver", &SERVER_NAMES)?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    write(state, account, "apiserver", &server, &issuer)?;
    for (name, common_name) in CLIENTS {
        let mut client = parameters(common_name, &[])?;
        client.distinguished_name.push(DnType::OrganizationName, "system:masters");
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        write(state, account, name, &client, &issuer)?;
    }
    let tokens = KeyPair::generate()?;
    account.write_secret(&state.pki("service-accounts.pub"), &tokens.public_key_pem())?;
    account.write_secret(&state.pki(LAST), &tokens.serialize_pem())
}

/// Writes a kubeconfig for each client: the port may have changed since the last run.
pub(crate) fn write_kubeconfigs(state: &State, account: &Account, port: u16) -> Result<()> {
    for (name, _) in CLIENTS {
        let config = kubeconfig(state, name, port)?;
        if name == "admin" {
            write_secret(&state.kubeconfig(), &config)?;
        } else {
            account.write_secret(&state.pki(&format!("{name}.kubeconfig")), &config)?;
        }
    }
    Ok(())
}

fn parameters(common_name: &str, alternative_names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = alternative_names.iter().map(|name| (*name).to_owned()).collect();
    let mut parameters = CertificateParams::new(names)?;
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2060, 1, 1);
    Ok(parameters)
}

fn write(
    state: &State,
    account: &Account,
    name: &str,
    parameters: &CertificateParams,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<()> {
    let key = KeyPair::generate()?;
    let certificate = parameters.signed_by(&key, issuer)?;
    account.write_secret(&state.pki(&format!("{name}.crt")), &certificate.pem())?;
    account.write_secret(&state.pki(&format!("{name}.key")), &key.serialize_pem())
}

/// JSON, which every reader of a kubeconfig takes too.
fn kubeconfig(state: &State, client: &str, port: u16) -> Result<String> {
    let embed = |name: &str| encoded(&state.pki(name));
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "flagmeter-dev",
        "clusters": [{"name": "flagmeter-dev", "cluster": {
            "server": format!("https://127.0.0.1:{port}"),
            "certificate-authority-data": embed("ca.crt")?,
        }}],
        "users": [{"name": client, "user": {
            "client-certificate-data": embed(&format!("{client}.crt"))?,
            "client-key-data": embed(&format!("{client}.key"))?,
        }}],
        "contexts": [{"name": "flagmeter-dev", "context": {
            "cluster": "flagmeter-dev", "user": client, "namespace": "flagmeter",
        }}],
    });
    Ok(serde_json::to_string_pretty(&config)?)
}

fn encoded(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
    Ok(STANDARD.encode(bytes))
}
