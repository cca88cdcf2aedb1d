package config

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
)

// compiledMagic ends with the version of the form.
const compiledMagic = "pwsync config 1\n"

// CompiledKey is of which text, read by which program, a compiled configuration is.
type CompiledKey [sha256.Size]byte

// Key makes one. A program reads the same text alike each time; another version of it may not. program tells one file of a program from another.
func Key(program, text []byte) CompiledKey {
	sum := sha256.Sum256(text)
	return sha256.Sum256(append(sum[:], program...))
}

// Compile returns what ParseHook made, in a form that is read without TOML and reflection, which cost the hook as much as one of its boxes. Only
// for what it made without an error.
//
// Bytes: "pwsync config 1\n", the key, SHA-256 of what follows, and the fields in the order of each; numbers are of 8 bytes, big-endian, texts and lists have
// their length in front.
func (c HookConfig) Compile(key CompiledKey) []byte {
	w := codec{}
	w.config(&c)
	sum := sha256.Sum256(w.bytes)
	return bytes.Join([][]byte{[]byte(compiledMagic), key[:], sum[:], w.bytes}, nil)
}

// Decompile reads what Compile returned. It reports whether that is whole, and of this key.
func Decompile(compiled []byte, key CompiledKey) (c HookConfig, ok bool) {
	rest, ok := bytes.CutPrefix(compiled, append([]byte(compiledMagic), key[:]...))
	if !ok || len(rest) < sha256.Size || sha256.Sum256(rest[sha256.Size:]) != [sha256.Size]byte(rest) {
		return HookConfig{}, false
	}
	r := codec{bytes: rest[sha256.Size:], reading: true}
	if r.config(&c); r.short || len(r.bytes) > 0 {
		return HookConfig{}, false
	}
	return c, true
}

// codec goes through the fields of a HookConfig, and appends them to bytes, or takes them off.
type codec struct {
	bytes   []byte
	reading bool
	short   bool // bytes were too few
}

func (x *codec) config(c *HookConfig) {
	x.text(&c.StateDir, &c.Hook.OnCaptureError, &c.Hook.OnAlsoError, &c.Proof)
	x.policy(&c.Policy)
	list(x, &c.Policies, func(p *NamedPolicy) {
		x.text(&p.Name, &p.BaseDN, &p.Filter)
		x.number(&p.Precedence)
		x.policy(&p.Policy)
	})
	list(x, &c.Targets, func(t *HookTarget) { x.text(&t.Name, &t.Type) })
	x.flag(&c.NoTarget)
}

func (x *codec) policy(p *Policy) {
	x.text(&p.Mode, &p.Breached)
	x.number(&p.MinLength, &p.MaxLength, &p.BannedScore)
	x.flag(&p.Complexity, &p.Names, &p.Walks, &p.Preflight)
	for _, texts := range []*[]string{&p.Tiers, &p.Banned, &p.Also, &p.Audit} {
		list(x, texts, func(s *string) { x.text(s) })
	}
}

func (x *codec) number(all ...*int) {
	for _, n := range all {
		switch {
		case !x.reading:
			x.bytes = binary.BigEndian.AppendUint64(x.bytes, uint64(*n))
		case len(x.bytes) < 8:
			x.bytes, x.short = nil, true
		default:
			*n = int(binary.BigEndian.Uint64(x.bytes))
			x.bytes = x.bytes[8:]
		}
	}
}

// length is a number of things of at least one byte each.
func (x *codec) length(n int) int {
	if x.number(&n); x.reading && (n < 0 || n > len(x.bytes)) {
		x.bytes, x.short = nil, true
		return 0
	}
	return n
}

func (x *codec) text(all ...*string) {
	for _, s := range all {
		n := x.length(len(*s))
		if x.reading {
			*s = string(x.bytes[:n])
			x.bytes = x.bytes[n:]
		} else {
			x.bytes = append(x.bytes, *s...)
		}
	}
}

func (x *codec) flag(all ...*bool) {
	for _, b := range all {
		n := 0
		if *b {
			n = 1
		}
		x.number(&n)
		*b = n != 0
	}
}

func list[T any](x *codec, all *[]T, each func(*T)) {
	n := x.length(len(*all))
	if x.reading && n > 0 {
		*all = make([]T, n)
	}
	for i := range n {
		each(&(*all)[i])
	}
}
