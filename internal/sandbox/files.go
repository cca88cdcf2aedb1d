package sandbox

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Names of the files in the folder.
const (
	caFile          = "ca.pem"
	caKeyFile       = "ca-key.pem"
	credentialsFile = "google-credentials.json"
	subjectFile     = "google-subject"
	accountKeyFile  = "google-key.pem"
	secretFile      = "entra-client-secret"
	certificateFile = "entra-client-certificate.pem"
	targetsFile     = "targets.toml"
)

const clientEmail = "pwsync@sandbox.iam.gserviceaccount.com"

// validity of certificates: longer than any test machine lives.
const validity = 10 * 365 * 24 * time.Hour

// keys are all secrets of the two tenants. They are made once and kept, so that
// a client's configuration outlives a restart.
type keys struct {
	ca             *x509.Certificate
	caSigner       crypto.Signer
	caKey          []byte // in DER, from which the token mint's key follows
	serviceAccount *rsa.PrivateKey
	secret         string
	certificate    *x509.Certificate // of the Entra application
}

func openKeys(dir string) (*keys, error) {
	var k keys
	for _, open := range []func(string) error{k.openCA, k.openServiceAccount, k.openSecret, k.openCertificate} {
		if err := open(dir); err != nil {
			return nil, fmt.Errorf("opening keys: %w", err)
		}
	}
	return &k, nil
}

func (k *keys) openCA(dir string) error {
	blocks, err := remember(filepath.Join(dir, caKeyFile), func() ([]byte, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "samba-pwsync cloud sandbox"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
			IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		}
		return pair(template, key)
	})
	if err != nil {
		return err
	}
	key, certificate, err := readPair(blocks)
	if err != nil {
		return fmt.Errorf("reading %s: %w", caKeyFile, err)
	}
	k.ca, k.caSigner = certificate, key.(crypto.Signer)
	k.caKey, err = x509.MarshalPKCS8PrivateKey(key)
	return err
}

func (k *keys) openServiceAccount(dir string) error {
	text, err := remember(filepath.Join(dir, accountKeyFile), func() ([]byte, error) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		return privateKey(key)
	})
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("reading %s: it is not PEM", accountKeyFile)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return fmt.Errorf("reading %s: %w", accountKeyFile, err)
	}
	k.serviceAccount = key.(*rsa.PrivateKey)
	return nil
}

func (k *keys) openSecret(dir string) error {
	text, err := remember(filepath.Join(dir, secretFile), func() ([]byte, error) {
		return []byte(rand.Text() + "\n"), nil
	})
	k.secret = string(bytes.TrimSpace(text))
	return err
}

func (k *keys) openCertificate(dir string) error {
	text, err := remember(filepath.Join(dir, certificateFile), func() ([]byte, error) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, err
		}
		return pair(&x509.Certificate{
			SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "samba-pwsync"},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
			KeyUsage: x509.KeyUsageDigitalSignature,
		}, key)
	})
	if err != nil {
		return err
	}
	if _, k.certificate, err = readPair(text); err != nil {
		return fmt.Errorf("reading %s: %w", certificateFile, err)
	}
	return nil
}

// serviceAccountID names the service account's key, as Google does by a hash.
func (k *keys) serviceAccountID() string {
	sum := sha1.Sum(k.serviceAccount.PublicKey.N.Bytes())
	return hex.EncodeToString(sum[:])
}

func (k *keys) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(k.ca)
	return pool
}

// serverCertificate is made anew at each start, for these names and for this
// machine's own.
func (k *keys) serverCertificate(names []string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: names[0]},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, k.ca, key.Public(), k.caSigner)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("making certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der, k.ca.Raw}, PrivateKey: key}, nil
}

// writeFiles writes what a client needs, with the URLs of this start.
func (sb *Sandbox) writeFiles(dir, clientDir string, k *keys) error {
	sb.CAFile = filepath.Join(dir, caFile)
	sb.GoogleCredentialsFile = filepath.Join(dir, credentialsFile)
	sb.EntraSecretFile = filepath.Join(dir, secretFile)
	sb.EntraCertificateFile = filepath.Join(dir, certificateFile)
	sb.TargetsFile = filepath.Join(dir, targetsFile)

	account, err := privateKey(k.serviceAccount)
	if err != nil {
		return err
	}
	credentials, err := json.MarshalIndent(map[string]string{
		"type":           "service_account",
		"project_id":     "sandbox",
		"private_key_id": k.serviceAccountID(),
		"private_key":    string(account),
		"client_email":   clientEmail,
		"client_id":      "100000000000000000001",
		"auth_uri":       sb.Google.URL + "o/oauth2/auth",
		"token_uri":      sb.Google.TokenURL,
	}, "", "  ")
	if err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(clientDir, name) }
	targets := fmt.Appendf(nil, `# Two targets in the cloud sandbox: append this to samba-pwsync.toml.

[target.google]
type             = "google"
user             = "userPrincipalName"
user_domain      = %q
credentials_file = %q
subject          = %q
endpoint         = %q
ca_file          = %q

[target.entra]
type               = "entra"
user               = "userPrincipalName"
user_domain        = %q
tenant_id          = %q
client_id          = %q
client_secret_file = %q
authority_url      = %q
graph_url          = %q
ca_file            = %q
`, sb.store.Domain(), at(credentialsFile), sb.Google.Subject, sb.Google.URL, at(caFile),
		sb.store.Domain(), TenantID, ClientID, at(secretFile), sb.Microsoft.AuthorityURL, sb.Microsoft.GraphURL, at(caFile))

	for name, text := range map[string][]byte{
		caFile:          pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.ca.Raw}),
		credentialsFile: append(credentials, '\n'),
		subjectFile:     []byte(sb.Google.Subject + "\n"),
		targetsFile:     targets,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// remember reads a file, or makes it.
func remember(path string, produce func() ([]byte, error)) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return text, err
	}
	if text, err = produce(); err != nil {
		return nil, err
	}
	return text, os.WriteFile(path, text, 0o600)
}

// pair is a new key and its self-signed certificate, in PEM.
func pair(template *x509.Certificate, key crypto.Signer) ([]byte, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	text, err := privateKey(key)
	if err != nil {
		return nil, err
	}
	return append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...), nil
}

func privateKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func readPair(text []byte) (any, *x509.Certificate, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return nil, nil, errors.New("it is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	if block, _ = pem.Decode(rest); block == nil {
		return nil, nil, errors.New("it holds no certificate")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	return key, certificate, err
}
