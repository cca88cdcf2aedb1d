package config

import (
	"fmt"
	"reflect"
	"testing"
)

// fill gives each field a value of its own, so that one that is left out, or taken for another, is missed.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n)
		}
	case reflect.String:
		v.SetString(fmt.Sprint("text ", *n))
	case reflect.Int:
		v.SetInt(int64(*n))
	case reflect.Bool:
		v.SetBool(true)
	default:
		panic("there is a field of another kind: " + v.Kind().String())
	}
}

func TestCompiled(t *testing.T) {
	full, n := HookConfig{}, 0
	fill(reflect.ValueOf(&full).Elem(), &n)
	flags := BuiltinHook()
	flags.Policy.Complexity, flags.Policy.Names = false, true
	key := Key([]byte("program"), []byte("text"))
	for name, c := range map[string]HookConfig{"full": full, "default": BuiltinHook(), "other flags": flags, "zero": {}} {
		compiled := c.Compile(key)
		if got, ok := Decompile(compiled, key); !ok || !reflect.DeepEqual(got, c) {
			t.Errorf("%s: %v, %+v\nwant %+v", name, ok, got, c)
		}
		for _, other := range []CompiledKey{Key([]byte("program"), []byte("text2")), Key([]byte("program2"), []byte("text")), Key([]byte("programtext"), nil)} {
			if _, ok := Decompile(compiled, other); ok {
				t.Errorf("%s: another key opens it", name)
			}
		}
		for i := range compiled {
			if _, ok := Decompile(compiled[:i], key); ok {
				t.Errorf("%s: cut off after %d bytes", name, i)
			}
			compiled[i] ^= 1
			if _, ok := Decompile(compiled, key); ok {
				t.Errorf("%s: byte %d altered", name, i)
			}
			compiled[i] ^= 1
		}
	}
}

// What is cut off or says nonsense is refused also where its checksum is right.
func TestDecompileNonsense(t *testing.T) {
	whole := codec{}
	c := BuiltinHook()
	whole.config(&c)
	for i := range whole.bytes {
		r := codec{bytes: whole.bytes[:i], reading: true}
		if r.config(&HookConfig{}); !r.short {
			t.Errorf("%d bytes are enough", i)
		}
	}
	for _, n := range []int{-1, 1 << 60} {
		w := codec{}
		w.number(&n)
		r := codec{bytes: append(w.bytes, "text"...), reading: true}
		if r.text(new(string)); !r.short {
			t.Errorf("a text of %d bytes", n)
		}
	}
}

func TestLikelyStateDir(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "/var/lib/samba-pwsync",
		"state_dir = \"/a\"\n[policy]":         "/a",
		"# words\n\n  state_dir=\"/b\" # more": "/b",
		"# state_dir = \"/c\"\n":               "/var/lib/samba-pwsync",
		"[policy]\nstate_dir = \"/d\"":         "/var/lib/samba-pwsync",
		"state_dir = '/e'":                     "/var/lib/samba-pwsync",
		"state_dir = \"/f":                     "/var/lib/samba-pwsync",
		"state_directory = \"/g\"":             "/var/lib/samba-pwsync",
		"\"/h\"":                               "/var/lib/samba-pwsync",
	} {
		if got := LikelyStateDir([]byte(text)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
