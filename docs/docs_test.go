package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Links of the documents lead somewhere, in the sources and as `make install` puts them down.
func TestLinks(t *testing.T) {
	installed := t.TempDir()
	if out, err := exec.Command("make", "-s", "-C", "..", "install-docs", "DESTDIR="+installed).CombinedOutput(); err != nil {
		t.Fatalf("make install-docs: %v\n%s", err, out)
	}
	for _, pattern := range []string{"../*.md", "*.md", filepath.Join(installed, "usr/share/doc/samba-pwsync/*.md")} {
		pages, err := filepath.Glob(pattern)
		if err != nil || len(pages) == 0 {
			t.Fatalf("%s: %d pages, %v", pattern, len(pages), err)
		}
		for _, page := range pages {
			for _, link := range link.FindAllStringSubmatch(read(t, page), -1) {
				if strings.Contains(link[1], "://") {
					continue
				}
				file, heading, _ := strings.Cut(link[1], "#")
				to := page
				if file != "" {
					to = filepath.Join(filepath.Dir(page), file)
				}
				if _, err := os.Stat(to); err != nil {
					t.Errorf("%s: link to %s: %v", page, link[1], err)
				} else if heading != "" && !strings.Contains(anchors(read(t, to)), "#"+heading+"\n") {
					t.Errorf("%s: link to %s: there is no such heading", page, link[1])
				}
			}
		}
	}
}

var (
	link     = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	headings = regexp.MustCompile(`(?m)^#+ (.*)$`)
	unlinked = regexp.MustCompile(`[^a-z0-9 -]`)
)

// anchors are the names that a page's headings have in links, each with # before it and a newline after it.
func anchors(page string) string {
	var b strings.Builder
	for _, heading := range headings.FindAllStringSubmatch(page, -1) {
		b.WriteString("#" + strings.ReplaceAll(unlinked.ReplaceAllString(strings.ToLower(heading[1]), ""), " ", "-") + "\n")
	}
	return b.String()
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
