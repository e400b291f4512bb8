package main

// This file keeps what a newer hotwrap has written and this one does not know: it is handed on, so that the next newer
// one finds it again.

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// graft adds to text, which v was written as, what before has in objects of the same place and v's type has not. Elements
// of lists are the same if their first field is there and is; where that holds for several, if all else is the same, too.
func graft(text, before []byte, v any) ([]byte, error) {
	if len(before) == 0 {
		return text, nil
	}
	fresh, err := parsed(text)
	if err != nil {
		return nil, err
	}
	old, err := parsed(before)
	if err != nil {
		return nil, err
	}
	return json.Marshal(grafted(fresh, old, reflect.TypeOf(v)))
}

// parsed keeps numbers as they are written: an inode does not fit into a float.
func parsed(text []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	err = d.Decode(&v)
	return v, err
}

func grafted(fresh, old any, t reflect.Type) any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch was := old.(type) {
	case map[string]any:
		is, ok := fresh.(map[string]any)
		switch {
		case !ok:
		case t.Kind() == reflect.Struct:
			graftStruct(is, was, t)
		case t.Kind() == reflect.Map:
			for key, value := range is {
				if before, ok := was[key]; ok {
					is[key] = grafted(value, before, t.Elem())
				}
			}
		}
	case []any:
		is, ok := fresh.([]any)
		if ok && t.Kind() == reflect.Slice {
			graftList(is, was, t.Elem())
		}
	}
	return fresh
}

func graftStruct(is, was map[string]any, t reflect.Type) {
	known := fieldsOf(t)
	for key, before := range was {
		field, ok := known[key]
		value, there := is[key]
		switch {
		case !ok && !there && !folds(known, key):
			is[key] = before
		case ok && there:
			is[key] = grafted(value, before, field)
		}
	}
}

// folds tells whether a reader would take key for one that is known: upper and lower case are the same to encoding/json.
func folds(known map[string]reflect.Type, key string) bool {
	for name := range known {
		if strings.EqualFold(name, key) {
			return true
		}
	}
	return false
}

// graftList finds for each element the one that it was. What cannot be told apart gets nothing: better lost than another's.
func graftList(is, was []any, t reflect.Type) {
	key := firstField(t)
	for _, value := range is {
		now, ok := value.(map[string]any)
		if !ok || now[key] == nil {
			continue
		}
		old, heirs := alike(was, key, now[key]), alike(is, key, now[key])
		if len(old) > 1 || len(heirs) > 1 {
			old = slices.DeleteFunc(old, func(before map[string]any) bool { return !holds(before, now) })
			heirs = slices.DeleteFunc(heirs, func(heir map[string]any) bool { return len(old) == 0 || !holds(old[0], heir) })
		}
		if len(old) == 1 && len(heirs) == 1 {
			grafted(now, old[0], t)
		}
	}
}

// alike are the elements of a list that have that value there.
func alike(list []any, key string, value any) (found []map[string]any) {
	for _, element := range list {
		if object, ok := element.(map[string]any); ok && object[key] != nil && holds(object[key], value) {
			found = append(found, object)
		}
	}
	return found
}

// holds tells whether all of now is in old, too.
func holds(old, now any) bool {
	switch now := now.(type) {
	case map[string]any:
		was, ok := old.(map[string]any)
		for key, value := range now {
			before, there := was[key]
			ok = ok && there && holds(before, value)
		}
		return ok
	case []any:
		was, ok := old.([]any)
		return ok && slices.EqualFunc(was, now, holds)
	}
	return reflect.DeepEqual(old, now)
}

// fieldsOf are the names that a struct is written with.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	known := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && f.Type.Kind() == reflect.Struct:
			for name, inner := range fieldsOf(f.Type) {
				known[name] = inner
			}
		case f.IsExported() && name != "-":
			if name == "" {
				name = f.Name
			}
			known[name] = f.Type
		}
	}
	return known
}

// firstField is what elements of a list are told apart by; "" where they are no structs.
func firstField(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.NumField() == 0 {
		return ""
	}
	name, _, _ := strings.Cut(t.Field(0).Tag.Get("json"), ",")
	return name
}
