package canary

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

const password = `aB3!xY<&"z'9\%q+`

// ntHash was computed by Samba: samba.credentials.Credentials.get_nt_hash.
const ntHash = "f213f99dbd9bfe8f173cbcb89349b6b5"

func search(t *testing.T, r io.Reader, passwords ...string) []Finding {
	t.Helper()
	s, err := New(passwords)
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := s.Scan("text", r)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func utf16le(s string) []byte {
	var b []byte
	for _, c := range []byte(s) {
		b = append(b, c, 0)
	}
	return b
}

func TestFindsEveryShape(t *testing.T) {
	body, err := json.Marshal(map[string]string{"password": password})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := hex.DecodeString(ntHash)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"UTF-8":                 "user=alice password=" + password + "\n",
		"UTF-16LE":              "\x00unicodePwd" + string(utf16le(`"`+password+`"`)),
		"URL query":             "https://example.com/?p=" + url.QueryEscape(password),
		"URL path":              "https://example.com/" + url.PathEscape(password),
		"JSON":                  string(body),
		"NT hash":               "\x10\x00" + string(raw) + "\x00",
		"NT hash in hex":        "nt=" + ntHash,
		"NT hash in upper case": "nt=" + strings.ToUpper(ntHash),
		"hex":                   hex.EncodeToString([]byte(password)),
		"UTF-16LE in hex":       strings.ToUpper(hex.EncodeToString(utf16le(password))),
		"base64":                base64.StdEncoding.EncodeToString([]byte(password)),
		"base64, begun before":  base64.StdEncoding.EncodeToString([]byte("alice:" + password + ":")),
		"base64, shifted by 1":  base64.StdEncoding.EncodeToString([]byte("x" + password + "\n")),
		"base64, shifted by 2":  base64.URLEncoding.EncodeToString([]byte("xy" + password + "\n")),
		"UTF-16LE in base64":    base64.StdEncoding.EncodeToString(append([]byte(`"`), utf16le(password)...)),
		"NT hash in base64":     base64.StdEncoding.EncodeToString(append([]byte("hash "), raw...)),
	} {
		if found := search(t, strings.NewReader(text), "another/Pa55word", password); len(found) == 0 {
			t.Errorf("%s: not found", name)
		} else if found[0].Password != 1 {
			t.Errorf("%s: found as password %d, want 1", name, found[0].Password)
		}
	}
}

func TestFindsNothingInInnocentText(t *testing.T) {
	text := strings.Repeat("password changed for alice aB3!xY<&\"z'9\\%q and so on\n", 20000)
	if found := search(t, strings.NewReader(text), password); len(found) != 0 {
		t.Errorf("found %v", found[0])
	}
}

// A needle may lie across any two reads, at the very start and at the very end.
func TestFindsAcrossReads(t *testing.T) {
	for _, before := range []int{0, 1, 1<<18 - 200, 1<<18 - 8, 1<<18 - 1, 1 << 18, 1<<19 - 3} {
		text := bytes.Repeat([]byte{'.'}, before)
		text = append(text, password...)
		found := search(t, iotest.HalfReader(bytes.NewReader(text)), password)
		if len(found) == 0 || found[0].Offset != int64(before) {
			t.Errorf("%d bytes before: found %v", before, found)
		}
	}
}

func TestNamesTheFileOfAnArchive(t *testing.T) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, contents := range map[string]string{"var/log/innocent": "nothing", "var/log/guilty": "it is " + password, "tmp/" + password: ""} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(contents))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(contents)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := New([]string{password})
	if err != nil {
		t.Fatal(err)
	}
	found, _, err := s.ScanTar("dc", &archive)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]bool{}
	for _, f := range found {
		files[f.Where] = true
	}
	if want := map[string]bool{"dc:/var/log/guilty": true, "dc:/tmp/" + password: true}; !maps.Equal(files, want) {
		t.Errorf("found in %v, want %v", files, want)
	}
}

func TestFindingsDoNotTell(t *testing.T) {
	for _, f := range search(t, strings.NewReader(password), password) {
		if strings.Contains(f.String(), password) {
			t.Error("a finding shows the password")
		}
	}
}

func BenchmarkScan(b *testing.B) {
	passwords := make([]string, 200)
	for i := range passwords {
		passwords[i] = rand.Text()[:14]
	}
	s, err := New(passwords)
	if err != nil {
		b.Fatal(err)
	}
	text := make([]byte, 16<<20)
	_, _ = rand.Read(text)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if found, _, err := s.Scan("noise", bytes.NewReader(text)); err != nil || len(found) > 0 {
			b.Fatal(found, err)
		}
	}
}

func TestShortPasswordIsAnError(t *testing.T) {
	if _, err := New([]string{"short"}); err == nil {
		t.Error("no error")
	}
}

func TestSeesCommandLineAndEnvironment(t *testing.T) {
	p := WatchProcesses(time.Millisecond)
	defer p.Stop()
	cmd := exec.Command("sh", "-c", "read _ # "+password)
	cmd.Env = append(cmd.Environ(), "CANARY=env-"+password)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	wanted := []string{"sh\x00-c\x00read _ # " + password, "CANARY=env-" + password}
	for deadline := time.Now().Add(2 * time.Minute); len(wanted) > 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for contents := range p.Seen() {
			if len(wanted) > 0 && strings.Contains(contents, wanted[0]) {
				wanted = wanted[1:]
			}
		}
	}
	stdin.Close()
	_ = cmd.Wait() // read's exit code at the end of its input is of no interest
	if len(wanted) > 0 {
		t.Errorf("%d of 2 not seen", len(wanted))
	}
}
