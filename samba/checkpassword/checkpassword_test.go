package checkpassword

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

func environment(vars map[string]string) func(string) string {
	return func(name string) string { return vars[name] }
}

func TestRead(t *testing.T) {
	for name, password := range map[string]string{
		"plain":             "C4rol-first!",
		"beyond ASCII":      "Paßwort-密码-😀",
		"newline kept":      "with newline\n",
		"carriage return":   "\r\n",
		"spaces kept":       "  both ends  ",
		"control character": "a\x01b\x7f",
		"one byte":          "x",
		"as long as may be": strings.Repeat("x", MaxPassword),
		"byte order mark":   "\ufeffx",
	} {
		for _, stdin := range []io.Reader{
			strings.NewReader(password),
			iotest.OneByteReader(strings.NewReader(password)),
			iotest.DataErrReader(strings.NewReader(password)),
		} {
			r, err := Read(stdin, environment(nil))
			if err != nil || string(r.Password) != password {
				t.Errorf("%s: Read = %q, %v", name, r.Password, err)
			}
			if r.Account != "" || r.UserPrincipalName != "" || r.FullName != "" || r.Ignored != nil {
				t.Errorf("%s: names out of nowhere: %+v", name, r)
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	broken := errors.New("broken")
	for name, c := range map[string]struct {
		stdin io.Reader
		want  error
	}{
		"nothing":            {strings.NewReader(""), ErrEmpty},
		"a byte too long":    {strings.NewReader(strings.Repeat("x", MaxPassword+1)), ErrTooLong},
		"a megabyte":         {strings.NewReader(strings.Repeat("\x00", 1<<20)), ErrTooLong},
		"NUL":                {strings.NewReader("a\x00b"), ErrNUL},
		"NUL at the end":     {strings.NewReader("abc\x00"), ErrNUL},
		"only NUL":           {strings.NewReader("\x00"), ErrNUL},
		"NUL and not UTF-8":  {strings.NewReader("\xff\x00"), ErrNUL},
		"Latin-1":            {strings.NewReader("Pa\xdfwort"), ErrNotUTF8},
		"cut off":            {strings.NewReader("abc\xe5\xaf"), ErrNotUTF8},
		"a lone surrogate":   {strings.NewReader("abc\xed\xa0\x80"), ErrNotUTF8},
		"an overlong slash":  {strings.NewReader("abc\xc0\xaf"), ErrNotUTF8},
		"a read that fails":  {io.MultiReader(strings.NewReader("abc"), iotest.ErrReader(broken)), broken},
		"a drain that fails": {io.MultiReader(strings.NewReader(strings.Repeat("x", 9999)), iotest.ErrReader(broken)), broken},
	} {
		r, err := Read(c.stdin, environment(map[string]string{EnvAccount: "alice"}))
		if !errors.Is(err, c.want) || r.Password != nil {
			t.Errorf("%s: Read = %d bytes, %v; want %v", name, len(r.Password), err, c.want)
		}
		if r.Account != "alice" {
			t.Errorf("%s: Account = %q, want it in spite of the error", name, r.Account)
		}
		if rest, err := io.ReadAll(c.stdin); len(rest) > 0 {
			t.Errorf("%s: %d bytes left unread, %v", name, len(rest), err)
		}
	}
}

// A password that is refused must not stay in memory.
func TestReadClears(t *testing.T) {
	for _, password := range []string{"secret\x00", "secret\xff", strings.Repeat("secret", 1000)} {
		var seen [][]byte
		stdin := readerFunc(func(b []byte) (int, error) {
			n := copy(b, password)
			password = password[n:]
			seen = append(seen, b[:n])
			if n == 0 {
				return 0, io.EOF
			}
			return n, nil
		})
		if _, err := Read(stdin, environment(nil)); err == nil {
			t.Fatal("want an error")
		}
		for _, b := range seen {
			if len(bytes.Trim(b, "\x00")) > 0 {
				t.Errorf("after the error %q is left", b)
			}
		}
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

func TestReadNames(t *testing.T) {
	for name, c := range map[string]struct {
		value string
		taken bool
	}{
		"plain":              {"alice", true},
		"beyond ASCII":       {"Zoë Müller 密码", true},
		"spaces":             {" alice ", true},
		"hostile to shells":  {"$(reboot)'\";", true}, // just a name; whoever uses it has to quote
		"as long as may be":  {strings.Repeat("x", 1024), true},
		"not given":          {"", true},
		"too long":           {strings.Repeat("x", 1025), false},
		"not UTF-8":          {"Zo\xeb", false},
		"newline":            {"alice\nforged: line", false},
		"escape":             {"\x1b[2Jalice", false},
		"delete":             {"alice\x7f", false},
		"C1 control":         {"alice\u009b", false},
		"last C1 control":    {"alice\u009f", false},
		"no-break space":     {"alice\u00a0", true},
		"replacement itself": {"alice\ufffd", true},
	} {
		for _, variable := range []string{EnvAccount, EnvUserPrincipalName, EnvFullName} {
			r, err := Read(strings.NewReader("x"), environment(map[string]string{variable: c.value}))
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{EnvAccount: r.Account, EnvUserPrincipalName: r.UserPrincipalName, EnvFullName: r.FullName}
			want := map[string]string{variable: c.value}
			if !c.taken {
				want = nil
			}
			for v, value := range got {
				if value != want[v] {
					t.Errorf("%s in %s: %s = %q", name, variable, v, value)
				}
			}
			if ignored := slices.Equal(r.Ignored, []string{variable}); ignored == c.taken {
				t.Errorf("%s in %s: Ignored = %q", name, variable, r.Ignored)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("C4rol-first!"), "alice", "alice@example.com", "Alice")
	f.Add([]byte("a\x00\xff"), "a\nb", strings.Repeat("x", 2000), "\xff")
	f.Add(bytes.Repeat([]byte("x"), MaxPassword+1), "", "", "")
	f.Fuzz(func(t *testing.T, stdin []byte, account, upn, fullName string) {
		in := bytes.NewReader(stdin)
		r, err := Read(in, environment(map[string]string{
			EnvAccount: account, EnvUserPrincipalName: upn, EnvFullName: fullName,
		}))
		if in.Len() > 0 {
			t.Errorf("%d bytes left unread", in.Len())
		}
		good := len(stdin) > 0 && len(stdin) <= MaxPassword && utf8.Valid(stdin) && !bytes.Contains(stdin, []byte{0})
		if good != (err == nil) || good && !bytes.Equal(r.Password, stdin) || !good && r.Password != nil {
			t.Errorf("Read = %q, %v", r.Password, err)
		}
		for _, name := range []string{r.Account, r.UserPrincipalName, r.FullName} {
			if len(name) > 1024 || !utf8.ValidString(name) || strings.ContainsAny(name, "\n\x1b\x7f\u0085") {
				t.Errorf("let %q through", name)
			}
		}
	})
}
