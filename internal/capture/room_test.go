package capture

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// crowd is a folder in which captures came one after the other.
type crowd struct {
	files []string
	next  time.Time
}

func (c *crowd) add(account, upn string) (file string) {
	c.next = c.next.Add(time.Millisecond)
	file = Header{ID: NewID(), Time: c.next, Account: account, UserPrincipalName: upn}.FileName()
	c.files = append(c.files, file)
	return file
}

// come adds one and takes away what has to go.
func (c *crowd) come(account, upn string) (file string, excess []string) {
	file = c.add(account, upn)
	excess = Excess(c.files, file)
	c.files = slices.DeleteFunc(c.files, func(f string) bool { return slices.Contains(excess, f) })
	return file, excess
}

func newCrowd() *crowd { return &crowd{next: time.Unix(1e9, 0)} }

func TestAFloodInOneNameLeavesTheOthers(t *testing.T) {
	c := newCrowd()
	var kept []string
	for n := range 300 {
		file, _ := c.come(fmt.Sprint("user", n), fmt.Sprintf("user%d@example.com", n))
		kept = append(kept, file)
	}
	for n := range 10 {
		file, _ := c.come(fmt.Sprint("plain", n), "")
		kept = append(kept, file)
	}
	victim, _ := c.come("victim", "victim@example.com")
	kept = append(kept, victim)
	var forged []string
	for range MaxDoubtful - 10 {
		forged = append(forged, c.add("Victim", ""))
	}
	for range 200 {
		file, excess := c.come("Victim", "")
		forged = append(forged, file)
		if len(excess) > 1 {
			t.Fatalf("%d went at once", len(excess))
		}
	}
	for _, file := range kept {
		if !slices.Contains(c.files, file) {
			t.Errorf("%s had to go", file)
		}
	}
	want := append(kept, forged[len(forged)-(MaxDoubtful-10):]...)
	if slices.Sort(want); !slices.Equal(c.files, want) {
		t.Errorf("%d are left, want %d: not the newest of the flood", len(c.files), len(want))
	}
}

func TestAFloodInManyNames(t *testing.T) {
	c := newCrowd()
	for n := range MaxDoubtful {
		c.add(fmt.Sprint("ghost", n), "")
	}
	for n := range 200 {
		file, _ := c.come(fmt.Sprint("spectre", n), "")
		if !slices.Contains(c.files, file) {
			t.Fatal("the newest went")
		}
	}
	if len(c.files) != MaxDoubtful {
		t.Errorf("%d are left", len(c.files))
	}
	// Who has several goes before who has one, however old.
	liz, _ := c.come("liz", "")
	if _, excess := c.come("liz", ""); !slices.Equal(excess, []string{liz}) {
		t.Errorf("%q went, and not liz's first", excess)
	}
}

func TestAccountsAreBoundedByThemselves(t *testing.T) {
	c := newCrowd()
	other, _ := c.come("other", "other@example.com")
	doubtful, _ := c.come("liz", "")
	first, _ := c.come("liz", "liz@example.com")
	for range MaxOfAccount - 1 {
		if _, excess := c.come("LIZ", "liz@example.com"); excess != nil {
			t.Fatalf("%q went", excess)
		}
	}
	if _, excess := c.come("liz", "liz@example.com"); !slices.Equal(excess, []string{first}) {
		t.Errorf("%q went, and not the oldest", excess)
	}
	for _, file := range []string{other, doubtful} {
		if !slices.Contains(c.files, file) {
			t.Errorf("%s went", file)
		}
	}
}

// Several hooks at once may each find too many, and a bound that was lowered leaves many: they go in small numbers.
func TestExcessGoesInSmallNumbers(t *testing.T) {
	c := newCrowd()
	for range MaxDoubtful + 100 {
		c.add("liz", "")
	}
	oldest := slices.Clone(c.files[:excessATime])
	if _, excess := c.come("tom", ""); !slices.Equal(excess, oldest) {
		t.Errorf("%d went: %q", len(excess), excess)
	}
	// One that was slow to be written sends nothing away that came after it.
	if excess := Excess(c.files, c.files[0]); excess != nil {
		t.Errorf("%q went because of an older one", excess)
	}
}

func TestForeignFilesStay(t *testing.T) {
	c := newCrowd()
	for n := range MaxDoubtful + 10 { // as an older version named them
		c.files = append(c.files, fmt.Sprintf("%020d-%s%s", n, ID{}, Suffix))
	}
	c.files = append(c.files, "damaged", "-", "x"+Suffix)
	if _, excess := c.come("liz", ""); excess != nil {
		t.Errorf("%q went", excess)
	}
	if excess := Excess(c.files, c.files[0]); excess != nil {
		t.Errorf("%q went", excess)
	}
}

func BenchmarkExcess(b *testing.B) {
	c := newCrowd()
	for n := range MaxDoubtful {
		c.add(fmt.Sprint("ghost", n), "")
	}
	newest := c.add("liz", "")
	for b.Loop() {
		if len(Excess(c.files, newest)) != 1 {
			b.Fatal("none went")
		}
	}
}
