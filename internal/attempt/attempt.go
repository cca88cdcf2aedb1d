// Package attempt does something in steps, of which any may hang: one that takes too long becomes an error, and the rest goes on without it.
//
// Why: the hook reads files, one of which may lie on a disk that does not answer, and has to answer all the same. A system call that hangs cannot be
// ended, only given up, together with its goroutine. A goroutine and a timer for each step would do, but each of them wakes a thread: in a
// process that lives for two milliseconds that cost a quarter of one.
//
// How: the caller's goroutine takes all steps, and notes what each returned. When one is late, this goroutine is given up, and another begins from the start: what is noted
// already is taken from the notes, the step that was late returns ErrHangs, and so it goes on. Therefore what stands between steps may only compute, and must do
// so alike each time; whatever reads, writes or asks for the time belongs into a step; and what a step returned is not changed afterwards. A step may consist of steps.
//
// What it does not solve: a step that was given up goes on, and what it does in the end, it does; what was deferred around it is done then, too. So it works on
// values of its own, and returns what it made of them. A late step is noticed up to 20 ms late.
package attempt

import (
	"errors"
	"runtime"
	"sync"
	"time"
)

// Errors of Step, besides those of the step itself.
var (
	ErrHangs    = errors.New("it hangs")
	ErrInternal = errors.New("internal fault") // a panic; what it says could tell of a password
)

// pace is how often a look is taken at the clock.
const pace = 20 * time.Millisecond

// Course is one goroutine's way through the steps.
type Course struct {
	*notes
	number int // of the goroutine
	next   int // step
}

// notes are what all goroutines of a Run share.
type notes struct {
	mu     sync.Mutex
	number int    // of the goroutine that counts; those before are given up
	ended  bool   // it has come to the end
	steps  []note // in the order in which they were begun. A step that consists of steps stands in front of them, until it is done and they are forgotten
}

// note is a step that was begun.
type note struct {
	until time.Time
	done  bool
	value any
	err   error
}

// Run returns what do returns, which may be begun several times.
func Run[T any](do func(*Course) T) T {
	result := make(chan T)
	go To(do, func(value T) { result <- value })
	return <-result
}

// To calls done with what do returns, once. It is for a program that ends with that: where nothing hangs, no goroutine is needed but the caller's, which do and done
// are called by. Where something does, To may never return, and another goroutine calls done.
func To[T any](do func(*Course) T, done func(T)) {
	n := &notes{}
	take := func(number int) {
		value := do(&Course{notes: n, number: number})
		if !n.end(number) {
			runtime.Goexit()
		}
		done(value)
	}
	var watch func()
	watch = func() {
		number, late, ended := n.giveUp(time.Now())
		if ended {
			return
		}
		time.AfterFunc(pace, watch)
		if late {
			take(number)
		}
	}
	time.AfterFunc(pace, watch)
	take(0)
}

// giveUp notes of the outermost step that is late, if there is one, that it hangs. number is of the goroutine that has to go on.
func (n *notes) giveUp(now time.Time) (number int, late, ended bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ended {
		return 0, false, true
	}
	for i, s := range n.steps {
		if !s.done && now.After(s.until) {
			n.note(i, note{done: true, err: ErrHangs})
			n.number++
			return n.number, true, false
		}
	}
	return 0, false, false
}

// end reports whether the goroutine counts that has come to the end.
func (n *notes) end(number int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if number != n.number {
		return false
	}
	n.ended = true
	return true
}

// note notes of a step that it is done.
func (n *notes) note(i int, s note) { n.steps = append(n.steps[:i], s) }

// Step returns what step returns, with the zero value and ErrHangs if that is not done in time, or with ErrInternal if it panics. Where no time is left, it is
// not begun.
func Step[T any](c *Course, until time.Time, step func() (T, error)) (T, error) {
	i, s := c.enter(until)
	if !s.done {
		s.done = true
		s.value, s.err = guarded(step)
		c.leave(i, s)
	}
	value, _ := s.value.(T) // nil for one that hangs
	return value, s.err
}

func guarded[T any](step func() (T, error)) (value T, err error) {
	defer func() {
		if recover() != nil {
			err = ErrInternal
		}
	}()
	return step()
}

// enter begins a step, or returns what is noted of it.
func (c *Course) enter(until time.Time) (int, note) {
	c.mu.Lock()
	c.goOn()
	defer c.mu.Unlock()
	i := c.next
	c.next++
	if i == len(c.steps) {
		s := note{until: until}
		if !time.Now().Before(until) {
			s.done, s.err = true, ErrHangs
		}
		c.steps = append(c.steps, s)
	}
	return i, c.steps[i]
}

func (c *Course) leave(i int, s note) {
	c.mu.Lock()
	c.goOn()
	defer c.mu.Unlock()
	c.note(i, s)
	c.next = i + 1
}

// goOn ends a goroutine that was given up.
func (c *Course) goOn() {
	if c.number != c.notes.number {
		c.mu.Unlock()
		runtime.Goexit()
	}
}
