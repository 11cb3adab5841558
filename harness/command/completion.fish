function %(complete_func)s
    set -l line (commandline -cp | string collect)
    set -l word (commandline -ct)
    set -l option (string match -rg '^(--[^=]*=|)' -- "$word")
    for item in (env COMP_LINE=$line %(complete_var)s=fish_complete %(prog_name)s)
        set -l parts (string split --max 1 , -- $item)
        switch $parts[1]
            case dir
                printf '%%s\n' "$option"(__fish_complete_directories $parts[2])
            case file
                printf '%%s\n' "$option"(__fish_complete_path $parts[2])
            case '*'
                printf '%%s\n' "$option$parts[2]"
        end
    end
end
complete --no-files --command %(prog_name)s --arguments '(%(complete_func)s)'
