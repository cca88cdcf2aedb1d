package policy

import "strings"

// layout is what is printed on the keys of a keyboard, row by row from the top: plain, and with shift at the same place. As on the
// keyboard, each row begins a bit to the right of the one above it; the space in front of a row stands for the column that it leaves out.
// Letters are in lower case, and need not be repeated with shift.
type layout [8]string

// layouts are the keyboards on which people walk: the American, the German, the French and the Russian. Others are like one of them but for a few
// keys at the edge.
var layouts = [...]layout{
	{
		"`1234567890-=", "~!@#$%^&*()_+",
		" qwertyuiop[]\\", " qwertyuiop{}|",
		" asdfghjkl;'", " asdfghjkl:\"",
		"\\zxcvbnm,./", "|zxcvbnm<>?",
	},
	{
		"^1234567890ß´", "°!\"§$%&/()=?`",
		" qwertzuiopü+", " qwertzuiopü*",
		" asdfghjklöä#", " asdfghjklöä'",
		"<yxcvbnm,.-", ">yxcvbnm;:_",
	},
	{
		"²&é\"'(-è_çà)=", " 1234567890°+",
		" azertyuiop^$", " azertyuiop¨£",
		" qsdfghjklmù*", " qsdfghjklm%μ",
		"<wxcvbn,;:!", ">wxcvbn?./§",
	},
	{
		"ё1234567890-=", "ё!\"№;%:?*()_+",
		" йцукенгшщзхъ\\", " йцукенгшщзхъ/",
		" фывапролджэ", " фывапролджэ",
		" ячсмитьбю.", " ячсмитьбю,",
	},
}

// key is a place on a keyboard; the zero value is none.
type key struct {
	row, column int8 // from 1
}

func (l *layout) find(r rune) key {
	if r == ' ' {
		return key{}
	}
	for i, row := range l {
		if at := strings.IndexRune(row, r); at >= 0 {
			column := 1
			for range row[:at] {
				column++
			}
			return key{int8(i/2 + 1), int8(column)}
		}
	}
	return key{}
}

// to returns which way b lies from a if the two are neighbours, or 0. A key has six: two in its row, and two each in the rows above and below.
func (a key) to(b key) step {
	if a.row == 0 || b.row == 0 {
		return 0
	}
	switch [2]int8{b.row - a.row, b.column - a.column} {
	case [2]int8{0, 1}:
		return 1
	case [2]int8{0, -1}:
		return 2
	case [2]int8{1, 0}: // 1qaz
		return 3
	case [2]int8{-1, 0}:
		return 4
	case [2]int8{1, -1}: // 3wa
		return 5
	case [2]int8{-1, 1}:
		return 6
	}
	return 0
}

// triples are the runs of three that people choose, where three in a row are too few to tell from chance: the ends of alphabet and rows, columns
// of the keyboard, straight lines of the number pad. Each also counts backwards.
const triples = "abc xyz qwe asd zxc yxc aze qsd wxc йцу фыв ячс абв " +
	"qaz wsx edc rfv tgb yhn ujm qay zhn aqw йфя " +
	"147 258 369 159 357 !@# !\"§ !\"#"
