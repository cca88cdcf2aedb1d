package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
)

// setGoogle sets a password with nothing but the files that serve has written.
func setGoogle(ctx context.Context, dir, mail, password string) error {
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			panic(err)
		}
		return text
	}
	config, err := google.JWTConfigFromJSON(read("google-credentials.json"), "https://www.googleapis.com/auth/admin.directory.user")
	if err != nil {
		return err
	}
	config.Subject = strings.TrimSpace(string(read("google-subject")))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(read("ca.pem"))
	client := config.Client(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}},
	}))
	endpoint := regexp.MustCompile(`endpoint += "(.*)"`).FindSubmatch(read("targets.toml"))
	request, err := http.NewRequestWithContext(ctx, "PUT", string(endpoint[1])+"admin/directory/v1/users/"+mail,
		strings.NewReader(fmt.Sprintf(`{"password":%q}`, password)))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", response.Status)
	}
	return nil
}
