// Package words finds banned words in passwords, also where they are written differently, and counts what a password is worth beside them.
//
// Why: people take the name of the firm, the town, the season and the word password, change the case, put a 0 for an o and a 1! at the end, and so have
// three kinds of characters. Microsoft Entra Password Protection looks for that in the cloud, and documents how; this is that, with more of what people
// do, for a list of a million words, in microseconds.
//
// How: passwords and words are compared in lower case, without accents and invisible characters, with look-alikes as the letter that they stand for (fold.go), and with
// repeated letters written once. A word of seven letters and more is also found with one letter wrong, missing or too much; a shorter one only if it is the
// whole password. Each word found counts as one point, as does each character that is in none; a character that is repeated right away counts once. Of all ways
// to count, the least is taken.
//
// Unlike Microsoft's, its words are looked for with one letter wrong anywhere in the password, accents do not matter (ü is u and ue), more characters
// are look-alikes, and repeats are worth nothing.
//
// The words are compiled (Compile) into a table that is mapped and searched as it is; only the pages that a password leads to are read. The
// table is two tries, of the words and of the longer words backwards: with one letter wrong, one half of a word is right, and is looked up first.
//
//	bytes   what
//	16      "pwsync words 2\n\x00"
//	32      tag: what the caller wants to know about where it came from
//	4       number of nodes
//	4, 4    children of the root of the words: first node, how many
//	4, 4    the same of the words backwards
//	4       number of words
//	4       CRC-32 of the nodes
//	4       CRC-32 of all above
//	8 each  nodes: letter (2), number of children (2), first child (4; the top bit says that a word ends here)
//
// The number in the first line goes up when words are written in another form than before (fold.go), or laid out otherwise: a table with another is made
// anew. All numbers are little-endian. The children of a node lie one after another, sorted by letter. The upper nodes come first, then the others branch by branch,
// so that a word's letters lie on few pages.
//
// Whom it trusts: whoever can write the table, which is root. It is to be replaced by renaming, never written in place: a file that is cut
// while it is mapped ends the process. Open looks at the header and the length only, for reading all of it would cost more than all searches; where a search meets
// nonsense it finds no word, and Err says so. Verify reads everything.
//
// What it does not solve: it knows no words of its own.
package words
