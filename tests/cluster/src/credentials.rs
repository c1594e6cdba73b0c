//! A small certificate authority by the openssl command, and a token for everybody who speaks to the API server.
//! Every file with a secret has mode 0600, and they lie in a directory of mode 0700.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::network::Network;
use crate::node::Node;
use crate::place::Place;
use crate::shell::run;

pub(crate) fn write_secret(path: impl AsRef<Path>, text: &str) -> Result<()> {
    let path = path.as_ref();
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Makes the authority, the certificates, the tokens, and a kubeconfig for each component.
pub(crate) fn make(place: &Place, network: Network, nodes: &[Node]) -> Result<()> {
    make_certificates(place, network)?;
    let authority = base64(Path::new(&place.pki("ca.crt")))?;
    let mut tokens = String::new();
    let mut user = |name: &str, group: &str, path: &Path| -> Result<()> {
        let token = token()?;
        tokens.push_str(&format!("{token},{name},{name},{group}\n"));
        write_secret(path, &kubeconfig(place, network, &authority, &token))
    };
    user("admin", "system:masters", &place.kubeconfig())?;
    for name in ["kube-controller-manager", "kube-scheduler", "kube-proxy"] {
        user(&format!("system:{name}"), "", &place.state.join("pki").join(format!("{name}.kubeconfig")))?;
    }
    for node in nodes {
        let path = place.state.join("pki").join(format!("{node}.kubeconfig"));
        user(&format!("system:node:{node}"), "system:nodes", &path)?;
    }
    write_secret(place.pki("tokens.csv"), &tokens)
}

fn make_certificates(place: &Place, network: Network) -> Result<()> {
    let directory = place.state.join("pki");
    let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
    let addresses = ["127.0.0.1".to_owned(), network.address(), network.first_service()];
    let alternative: Vec<String> = names
        .iter()
        .map(|name| format!("DNS:{name}"))
        .chain(addresses.iter().map(|address| format!("IP:{address}")))
        .collect();
    // The server's certificate is etcd's too, and etcd's gateway calls etcd with it.
    let config = format!(
        "[req]\ndistinguished_name=dn\nprompt=no\n[dn]\nCN=pullguard-test-cluster\n\
         [ca]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign,digitalSignature\n\
         subjectKeyIdentifier=hash\n\
         [server]\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName={}\n\
         [client]\nbasicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n",
        alternative.join(",")
    );
    fs::write(directory.join("openssl.cnf"), config).context("cannot write openssl.cnf")?;
    let openssl = |words: &str| run(Command::new("openssl").args(words.split(' ')).current_dir(&directory));
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -config openssl.cnf";
    openssl(&format!("req -x509 {key} -extensions ca -days 365 -keyout ca.key -out ca.crt"))?;
    for (name, kind, subject) in [
        ("server", "server", "/CN=kube-apiserver"),
        // The API server towards kubelets and etcd.
        ("client", "client", "/O=system:masters/CN=kube-apiserver"),
    ] {
        openssl(&format!("req -new {key} -subj {subject} -keyout {name}.key -out {name}.csr"))?;
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 365 \
             -extfile openssl.cnf -extensions {kind} -out {name}.crt"
        ))?;
    }
    openssl("ecparam -genkey -name prime256v1 -noout -out service-accounts.key")?;
    for name in ["ca", "server", "client", "service-accounts"] {
        // openssl 3 writes keys so by itself, older ones by the umask.
        let path = directory.join(format!("{name}.key"));
        let key = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        fs::remove_file(&path).with_context(|| format!("cannot replace {}", path.display()))?;
        write_secret(&path, &key)?;
    }
    Ok(())
}

fn token() -> Result<String> {
    let mut bytes = [0_u8; 24];
    File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes)).context("no randomness")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn base64(path: &Path) -> Result<String> {
    let output = run(Command::new("openssl").args(["base64", "-A", "-in"]).arg(path))?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn kubeconfig(place: &Place, network: Network, authority: &str, token: &str) -> String {
    let (address, port, name) = (network.address(), network.api_port(), &place.name);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: {name}
  cluster:
    server: https://{address}:{port}
    certificate-authority-data: {authority}
users:
- name: {name}
  user:
    token: {token}
contexts:
- name: {name}
  context: {{cluster: {name}, user: {name}, namespace: default}}
current-context: {name}
"
    )
}
