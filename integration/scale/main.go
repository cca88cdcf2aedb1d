// Command scale measures on a real domain controller what it costs to find out whose password a capture without a name holds, and what the
// watch costs while nothing happens, in domains of several sizes, one after the other in one run. It prints a table as docs/benchmarks.md
// has it. The machine should be idle: it is the DC, the agent and the clouds in one.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/samba-pwsync/samba-pwsync/integration/lab"
)

const (
	changers = 200 // accounts whose passwords are changed
	forged   = 10_000
	quiet    = 20 * time.Second
)

func main() {
	sizes := flag.String("sizes", "1000,5000,20000", "numbers of accounts, growing")
	single := flag.Bool("single", false, "measure changes one at a time alone: minutes instead of a quarter of an hour")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *sizes, *single)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

// scale is a run.
type scale struct {
	*lab.Lab
	single bool
	users  []string
	table  []string
}

func run(ctx context.Context, sizes string, single bool) (err error) {
	// The agent asks about new accounts when confirm_timeout is over, and until then the measurement waits.
	const config = "state_dir = \"/var/lib/samba-pwsync\"\n"
	l, err := lab.Start(ctx, lab.Options{Config: config + "[directory]\nconfirm_timeout = \"5s\"\n", Progress: progress})
	if err != nil {
		return fmt.Errorf("starting the lab: %w", err)
	}
	defer func() {
		if e := l.Close(); err == nil {
			err = e
		}
	}()
	s := &scale{Lab: l, single: single}
	if err := s.createUsers(ctx); err != nil {
		return err
	}
	crowd := 0
	for size := range strings.SplitSeq(sizes, ",") {
		accounts, err := strconv.Atoi(size)
		if err != nil {
			return fmt.Errorf("reading the sizes: %w", err)
		}
		progress("growing to %d accounts", accounts)
		if err := l.DC.AddCrowd(ctx, crowd, accounts-changers-crowd); err != nil {
			return err
		}
		crowd = accounts - changers
		if err := s.decided(ctx); err != nil {
			return err
		}
		if err := s.measure(ctx, fmt.Sprint(accounts)); err != nil {
			return err
		}
	}
	if !single {
		if err := l.DC.Configure(ctx, config); err != nil { // captures wait as long as they do by default, so that those of the flood do
			return err
		}
		if err := s.flood(ctx); err != nil {
			return err
		}
	}
	fmt.Println("| accounts | one at a time, with a name | without | 200 at once, with a name | without | CPU per idle second | the DC alone |")
	fmt.Println("| --- | --- | --- | --- | --- | --- | --- |")
	fmt.Println(strings.Join(s.table, "\n"))
	return nil
}

var began = time.Now()

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%5.0f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

func (s *scale) createUsers(ctx context.Context) error {
	admin, err := s.DC.Administrator()
	if err != nil {
		return err
	}
	defer admin.Close()
	for n := range changers {
		name := fmt.Sprintf("user%03d", n)
		if err := s.Sandbox.AddUsers(ctx, lab.Mail(name)); err != nil {
			return err
		}
		if err := admin.Create(name, s.NewPassword()); err != nil {
			return fmt.Errorf("creating %s: %w", name, err)
		}
		s.users = append(s.users, name)
	}
	return nil
}

// decided waits until the agent has asked about all accounts that are new, a hundred a second: that is no part of what is measured.
func (s *scale) decided(ctx context.Context) error {
	progress("waiting until the agent has looked at them")
	time.Sleep(15 * time.Second) // the watch must have met them all first
	for deadline := time.Now().Add(15 * time.Minute); ; time.Sleep(time.Second) {
		text, err := s.DC.Exec(ctx, "", "sh", "-c", "samba-pwsync status --json || true") // its exit code tells of drift
		if err != nil {
			return err
		}
		var status struct {
			Agent struct {
				Followup struct{ Undecided int } `json:"followup"`
			} `json:"agent"`
		}
		if err := json.Unmarshal([]byte(text), &status); err != nil {
			return fmt.Errorf("reading the status: %w", err)
		}
		if status.Agent.Followup.Undecided == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d accounts are still undecided", status.Agent.Followup.Undecided)
		}
	}
}

func (s *scale) measure(ctx context.Context, size string) error {
	if err := s.restarted(ctx, s.DC.WithNames); err != nil {
		return err
	}
	progress("with names, one at a time")
	named, err := s.times(ctx, s.oneAtATime)
	if err != nil {
		return err
	}
	namedMany, many := "", ""
	if !s.single {
		progress("with names, %d at once", changers)
		if namedMany, err = s.times(ctx, s.atOnce); err != nil {
			return err
		}
	}
	if err := s.restarted(ctx, s.DC.WithoutNames); err != nil {
		return err
	}
	progress("without names, one at a time")
	// What is slowest of a hundred is told by more than two of them.
	single, err := s.times(ctx, s.oneAtATime, s.oneAtATime, s.oneAtATime)
	if err != nil {
		return err
	}
	if s.single {
		s.row(size, named, single, "", "", "", "")
		return nil
	}
	progress("without names, %d at once", changers)
	if many, err = s.times(ctx, s.atOnce); err != nil {
		return err
	}
	progress("idle")
	both, err := s.idle(ctx)
	if err != nil {
		return err
	}
	if err := s.DC.StopServe(ctx); err != nil {
		return err
	}
	alone, err := s.idle(ctx)
	if err != nil {
		return err
	}
	s.row(size, named, single, namedMany, many, both, alone)
	return s.DC.StartServe(ctx)
}

// restarted has Samba restarted by configure, and then gives the agent time to dial anew: it does so within 2 s, and the captures of
// that time would be the slowest of the 200, whatever the domain's size.
func (s *scale) restarted(ctx context.Context, configure func(context.Context) error) error {
	if err := configure(ctx); err != nil {
		return err
	}
	time.Sleep(5 * time.Second)
	return nil
}

func (s *scale) row(cells ...string) {
	row := "| " + strings.Join(cells, " | ") + " |"
	progress("%s", row)
	s.table = append(s.table, row)
}

// flood measures once more while captures wait that nobody will ever prove.
func (s *scale) flood(ctx context.Context) error {
	progress("having the hook take %d passwords that are nobody's", forged)
	_, err := s.DC.Exec(ctx, s.NewPassword(), "sh", "-c", `
		password=$(cat)
		for worker in 1 2 3 4; do
			for n in $(seq $(($1 / 4))); do printf %s "$password" | samba-pwsync-hook; done &
		done
		wait`, "sh", fmt.Sprint(forged))
	if err != nil {
		return err
	}
	single, err := s.times(ctx, s.oneAtATime)
	if err != nil {
		return err
	}
	status, err := s.DC.Exec(ctx, "", "sh", "-c", "ls /var/lib/samba-pwsync/spool/incoming | wc -l")
	if err != nil {
		return err
	}
	progress("at the end %s captures wait", strings.TrimSpace(status))
	s.row("the last, and 10,000 forged captures wait", "", single, "", "", "", "")
	return nil
}

// times returns median and 99th percentile of what the agent says a proof took, for the changes that each of rounds makes, one of each user.
func (s *scale) times(ctx context.Context, rounds ...func(context.Context) error) (string, error) {
	before, err := s.proven(ctx)
	if err != nil {
		return "", err
	}
	for _, change := range rounds {
		if err := change(ctx); err != nil {
			return "", err
		}
	}
	var took []time.Duration
	for deadline := time.Now().Add(2 * time.Minute); len(took) < changers*len(rounds); time.Sleep(time.Second) {
		all, err := s.proven(ctx)
		if err != nil {
			return "", err
		}
		took = all[len(before):]
		if time.Now().After(deadline) {
			return "", fmt.Errorf("of %d changes %d were proven", changers*len(rounds), len(took))
		}
	}
	slices.Sort(took)
	return fmt.Sprintf("%.0f, %.0f ms", ms(took[len(took)/2]), ms(took[len(took)*99/100])), nil
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func (s *scale) proven(ctx context.Context) (took []time.Duration, err error) {
	events, err := s.DC.Events(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		if e.Name == "proven" {
			d, err := time.ParseDuration(e.Fields["took"])
			if err != nil {
				return nil, fmt.Errorf("reading serve's log: %w", err)
			}
			took = append(took, d)
		}
	}
	return took, nil
}

// oneAtATime changes one password after the other. Which of the DC's LDAP workers takes a connection is chance, and whether it is the one
// that the agent asks makes a difference, so each few changes have a connection of their own.
func (s *scale) oneAtATime(context.Context) error {
	for some := range slices.Chunk(s.users, 10) {
		if err := s.changeEach(some); err != nil {
			return err
		}
	}
	return nil
}

func (s *scale) changeEach(names []string) error {
	admin, err := s.DC.Administrator()
	if err != nil {
		return err
	}
	defer admin.Close()
	for _, name := range names {
		if err := admin.Reset(name, s.NewPassword()); err != nil {
			return fmt.Errorf("changing %s: %w", name, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

func (s *scale) atOnce(context.Context) error {
	errs := make([]error, len(s.users))
	sessions := make([]*lab.Session, len(s.users))
	for i := range sessions {
		var err error
		if sessions[i], err = s.DC.Administrator(); err != nil {
			return err
		}
		defer sessions[i].Close()
	}
	var changes sync.WaitGroup
	for i, name := range s.users {
		password := s.NewPassword()
		changes.Go(func() { errs[i] = sessions[i].Reset(name, password) })
	}
	changes.Wait()
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("changing many at once: %w", err)
		}
	}
	return nil
}

// idle returns how much of a CPU all that runs on the DC takes while nothing happens.
func (s *scale) idle(ctx context.Context) (string, error) {
	time.Sleep(10 * time.Second) // what was just done has its aftermath
	before, err := s.cpu(ctx)
	if err != nil {
		return "", err
	}
	time.Sleep(quiet)
	after, err := s.cpu(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%.1f ms", ms(after-before)/quiet.Seconds()), nil
}

// cpu is how much CPU the DC's processes have had (proc(5), stat: utime and stime, in ticks of 10 ms).
func (s *scale) cpu(ctx context.Context) (total time.Duration, err error) {
	out, err := s.DC.Exec(ctx, "", "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null || true")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(field)
			if err != nil {
				return 0, fmt.Errorf("reading /proc: %w", err)
			}
			total += time.Duration(ticks) * 10 * time.Millisecond
		}
	}
	return total, nil
}
