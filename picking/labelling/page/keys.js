// Keys, and the table of them that ? shows.

const CLICKS = [
  ['Click', 'add a particle; on a particle: take it away; on a proposal: accept it'],
  ['Shift-click', 'say that there is no particle (ice, carbon, an aggregate); rejects a proposal'],
  ['Drag a mark', 'move it'],
  ['Drag elsewhere', 'pan; also with the right button, or with Space held'],
  ['Ctrl-drag', 'a box: accept or reject all proposals in it'],
  ['Wheel', 'zoom at the pointer'],
];

/** commands: [keys, what it does, function]; a key has Shift+ or Ctrl+ before it. */
export function listenToKeys(commands, table) {
  const byKey = new Map();
  for (const [keys, , command] of commands) for (const key of keys) byKey.set(key, command);
  window.addEventListener('keydown', (event) => {
    const isTyping = event.target.matches('input:not([type="range"]):not([type="checkbox"]), select');
    if (isTyping || event.altKey || document.querySelector('dialog[open]')) return;
    const modifiers = (event.ctrlKey || event.metaKey ? 'Ctrl+' : '') +
      (event.shiftKey && event.key.length === 1 && /[a-z]/i.test(event.key) ? 'Shift+' : '');
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const command = byKey.get(modifiers + key);
    if (!command) return;
    event.preventDefault();
    command();
  });
  for (const [keys, text] of [...CLICKS.map(([k, t]) => [[k], t]), ...commands]) {
    const row = table.insertRow();
    const cell = row.insertCell();
    keys.forEach((key, number) => {
      if (number) cell.append(' ');
      const shown = document.createElement('kbd');
      shown.textContent = SHOWN[key] ?? key.replace(/(^|\+)([a-z])$/, (all) => all.toUpperCase());
      cell.append(shown);
    });
    row.insertCell().textContent = text;
  }
}

const SHOWN = { ArrowLeft: '←', ArrowRight: '→', Escape: 'Esc' };
