// Small parts that the others use. All text is set as text: nothing here makes markup of it.

/** Make an element with properties or attributes, and children that are elements or texts. */
function make(tag, settings = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(settings)) {
    if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const counted = (number) => number.toLocaleString("en-US");
const plural = (number, word) => `${counted(number)} ${word}${number === 1 ? "" : "s"}`;

let lastNumber = 0;

/** A name for an element, which no other has. */
const newId = () => `_made_${++lastNumber}`;
