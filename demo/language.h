// demo/language.h - Velan, a made-up language: its sentences, its dictionary, and the task that the demo
// fine-tunes, which is to say an English sentence in Velan. Small parts of the base model's text are
// Velan and its dictionary, of words and short phrases, but no translated sentence.
//
// The rules: nouns before their adjectives, numbers (Roman numerals) after both, the verb last, no
// articles. Plural: -ri, on the adjective too. What the verb acts on: -n, on the adjective too. Past:
// -sta, future: -lu.
#pragma once
#include "text.h"

void write_story(struct text *t);    // an English sentence
void write_velan(struct text *t);    // a Velan sentence
void write_glossary(struct text *t); // an entry of the dictionary: a word or a phrase
void write_roman(struct text *t, int number);

// A question and its answer. Sentences are split in two by their meaning: those held out appear in
// no other text, in neither language.
void write_task(struct text *question, struct text *answer, bool held_out);
// The same sentences, but said in the English passive: what stories alone teach.
void write_passive(struct text *question, struct text *answer, bool held_out);
