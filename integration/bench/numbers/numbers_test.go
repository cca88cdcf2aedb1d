package numbers

import (
	"math/rand/v2"
	"testing"
)

func TestQuantile(t *testing.T) {
	values := []float64{5, 1, 4, 2, 3}
	for q, want := range map[float64]float64{0: 1, 0.5: 3, 0.99: 5, 1: 5} {
		if got := Quantile(values, q); got != want {
			t.Errorf("the %g-quantile is %g, want %g", q, got, want)
		}
	}
	if values[0] != 5 {
		t.Error("the values were sorted in place: they are paired by their places")
	}
}

// What disturbs whole rounds does not widen the interval, and the true ratio lies in it.
func TestComparePairsRounds(t *testing.T) {
	draw := rand.New(rand.NewPCG(3, 4))
	var a, b []float64
	for range 400 {
		round := 1 + 9*draw.Float64() // a round can be ten times slower than another
		a = append(a, 1.5*round*(1+0.01*draw.NormFloat64()))
		b = append(b, round*(1+0.01*draw.NormFloat64()))
	}
	r := Compare(a, b, 0.5)
	if r.Low > 1.5 || r.High < 1.5 || r.Value < r.Low || r.Value > r.High {
		t.Errorf("1.5 is not within %v", r)
	}
	if r.High-r.Low > 0.1 {
		t.Errorf("%v: rounds are not paired", r)
	}
}

func TestTable(t *testing.T) {
	if got, want := Table([][]string{{"a", "b"}, {"1", "2"}}), "| a | b |\n| --- | --- |\n| 1 | 2 |\n"; got != want {
		t.Errorf("got %q", got)
	}
}
