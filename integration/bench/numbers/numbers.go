// Package numbers is what the benchmarks share: quantiles, ratios with the uncertainty that they have, and the words that say on what machine
// they were taken.
//
// Why: one machine's milliseconds say little on another, and one run's little on the next. What is compared is measured side by side in one
// run, in rounds, and the ratio of two is given with the interval in which it lies in 95 of 100 such runs. The interval tells of chance within
// the run only: not of another machine, nor of a disturbance that lasted the whole run.
package numbers

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Quantile returns the value that the part q of the values lies below; 0.5 is the median.
func Quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(float64(len(sorted))*q), len(sorted)-1)]
}

// Ratio is a quotient of two quantiles, and the bounds of its 95 % interval.
type Ratio struct{ Value, Low, High float64 }

func (r Ratio) String() string { return fmt.Sprintf("%.2f (%.2f–%.2f)", r.Value, r.Low, r.High) }

// Fine is String with one more digit.
func (r Ratio) Fine() string { return fmt.Sprintf("%.3f (%.3f–%.3f)", r.Value, r.Low, r.High) }

const resamples = 1000

// Compare returns the q-quantile of a over that of b. a[i] and b[i] are of the same round: the interval is that of the quotients of rounds
// drawn anew, with replacement (percentile bootstrap), so what slows a whole round down counts for both.
func Compare(a, b []float64, q float64) Ratio {
	if len(a) != len(b) || len(a) == 0 {
		panic("not of the same rounds")
	}
	draw := rand.New(rand.NewPCG(1, 2)) // the same values give the same interval
	ratios := make([]float64, resamples)
	someA, someB := make([]float64, len(a)), make([]float64, len(b))
	for n := range ratios {
		for i := range a {
			j := draw.IntN(len(a))
			someA[i], someB[i] = a[j], b[j]
		}
		ratios[n] = Quantile(someA, q) / Quantile(someB, q)
	}
	return Ratio{Quantile(a, q) / Quantile(b, q), Quantile(ratios, 0.025), Quantile(ratios, 0.975)}
}

// Machine says in a line where and when this runs, and how busy it is: its load average.
func Machine() string {
	line := fmt.Sprintf("%s; %d cores", time.Now().UTC().Format("2006-01-02 15:04 UTC"), runtime.NumCPU())
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, found := strings.Cut(string(info), "model name\t: "); found {
			model, _, _ := strings.Cut(rest, "\n")
			line += " of " + model
		}
	}
	if version, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		line += "; Linux " + strings.TrimSpace(string(version))
	}
	return line + "; load " + Load()
}

// Load is the machine's load average over the last minute.
func Load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	load, _, _ := strings.Cut(string(text), " ")
	return load
}

// Table writes rows as markdown; the first is the head.
func Table(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintf(&b, "|%s\n", strings.Repeat(" --- |", len(row)))
		}
	}
	return b.String()
}
