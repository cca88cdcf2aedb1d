package letters

import "testing"

// Folding makes classes: it is the same for all cases of a character, and changes nothing twice.
func TestFold(t *testing.T) {
	for r := range rune(0x20000) {
		f := Fold(r)
		if Fold(f) != f {
			t.Fatalf("%U folds to %U, that to %U", r, f, Fold(f))
		}
	}
	for _, same := range []string{"kK\u212A", "sSſ", "σΣς", "ǆǅǄ", "åÅ\u212B", "θΘϑϴ", "µμΜ"} {
		first := []rune(same)[0]
		for _, r := range same {
			if Fold(r) != Fold(first) {
				t.Errorf("%U folds to %U, %U to %U", r, Fold(r), first, Fold(first))
			}
		}
	}
}
